-- Prints what wrk measured as one line that a program can read.
function done(summary, latency, requests)
    local e = summary.errors
    print(string.format(
        'bench-result {"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50_ms":%.4f,"p99_ms":%.4f,"max_ms":%.4f,"mean_ms":%.4f}',
        summary.requests, summary.duration / 1e6, summary.bytes,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3, latency.mean / 1e3))
end
