//! In which order things come, and what may be missing between them.

use super::*;

#[test]
fn parts_are_taken_by_their_urgency_whatever_order_the_plan_has() {
    let parts = ["history", "seasons", "descriptions", "prices"].map(|class| {
        format!(r#"{{"part":"of-{class}","class":"{class}","documents":0,"bytes":9}}"#)
    });
    let parts = parts.join(",");
    let plan = format!(r#"{{"snapshot":"s1","cursor":"c0","parts":[{parts}]}}"#);
    let mut bench = bench(move |path| match path {
        path if path.ends_with("/snapshot") => page(&plan),
        path if path.contains("/feed?") => page(r#"{"items":[],"next":"c0","caught_up":true}"#),
        _ => part("\"t\"", b"{\"end\":true,\"count\":0}\n"),
    });
    bench.steps(6);
    let asked: Vec<_> = bench.host.requests.try_iter().collect();
    let classes = asked.iter().filter_map(|head| {
        let (_, class) = head.split(' ').nth(1)?.split_once("/s1/of-")?;
        Some(class)
    });
    assert!(
        classes.eq(["prices", "descriptions", "seasons", "history"]),
        "{asked:?}"
    );
}

#[test]
fn a_feed_that_begins_after_what_was_last_heard_leads_to_a_refetch_and_to_no_loop() {
    let snapshots = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&snapshots);
    let mut changes = 0;
    let mut bench = bench(move |path| match path {
        path if path.ends_with("/snapshot") => {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            page(PLAN)
        }
        path if path.contains("/feed?") => {
            changes += 1;
            // Ahead of this box's clock for ever: the worst a clock can do.
            let change = format!(
                r#"{{"items":[{{"collection":"a","id":"3","version":{changes},"data":{{}}}}],"next":"c{changes}","caught_up":true,"horizon":"2999-01-01T00:00:00Z"}}"#
            );
            page(&change)
        }
        _ => part(
            "\"t1\"",
            format!("{TWO}{{\"end\":true,\"count\":2}}\n").as_bytes(),
        ),
    });
    let made = || snapshots.load(std::sync::atomic::Ordering::Relaxed);
    // Plan, part, end; then the feed.
    bench.steps(3);
    assert_eq!((made(), bench.cursor().as_deref()), (1, Some("c0")));
    bench.steps(1);
    assert!(
        bench.pull.refetch && !bench.has("3"),
        "nothing is taken on top of a hole"
    );
    bench.steps(3);
    assert_eq!((made(), bench.pull.refetch), (2, false));
    bench.steps(3);
    assert_eq!(made(), 2);
    assert!(bench.has("3"));
}
