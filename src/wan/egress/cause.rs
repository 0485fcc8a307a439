//! Why a request failed, as one stable code each.

macro_rules! causes {
    ($($variant:ident = $code:literal, $retry:literal, $text:literal;)*) => {
        /// Why a request failed. The text form is stable: checks, status pages and support search for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause { $(#[doc = $text] $variant,)* }

        impl Cause {
            /// Every cause there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable code.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// What happened, in a few words.
            #[must_use]
            pub const fn text(self) -> &'static str { match self { $(Self::$variant => $text,)* } }

            /// Whether the same request may succeed later although nobody changes a setting or the request.
            #[must_use]
            pub const fn is_retryable(self) -> bool { match self { $(Self::$variant => $retry,)* } }
        }
    };
}

causes! {
    OutsideContract = "outside_contract", false, "the address is on no host this shop was opened for";
    NoLink = "no_link", true, "the network is not connected";
    Dns = "dns", true, "the name can't be resolved";
    TcpRefused = "tcp_refused", true, "the connection is refused";
    TcpTimeout = "tcp_timeout", true, "the connection gets no answer";
    ConnectionLost = "connection_lost", true, "the connection broke";
    CaptivePortal = "captive_portal", true, "the network wants somebody to sign in first";
    ClockSkew = "clock_skew", true, "this box's clock is wrong";
    ProxyUnreachable = "proxy_unreachable", true, "the proxy can't be reached";
    ProxyTimeout = "proxy_timeout", true, "the proxy does not answer";
    ProxyAuth = "proxy_407", false, "the proxy refuses this box's user and password";
    ProxyDigestOnly = "proxy_digest_only", false, "the proxy takes Digest sign-in only, which this box does not speak";
    ProxyNtlmOnly = "proxy_ntlm_only", false, "the proxy takes Windows sign-in (NTLM, Kerberos) only, which this box does not speak";
    ProxyScheme = "proxy_scheme", false, "the proxy's kind of sign-in or address is not supported";
    ProxyDenied = "proxy_denied", false, "the proxy forbids this host";
    ProxyFailed = "proxy_failed", true, "the proxy can't reach this host";
    TlsUnknownIssuer = "tls_unknown_issuer", true, "the certificate's issuer is not trusted";
    TlsIntercepted = "tls_intercepted", true, "somebody between this box and the host signs certificates in its name";
    TlsExpired = "tls_expired", true, "the certificate has expired";
    TlsNotYetValid = "tls_not_yet_valid", true, "the certificate is not valid yet";
    TlsWrongHost = "tls_wrong_host", true, "the certificate is for another host";
    TlsRevoked = "tls_revoked", true, "the certificate is revoked";
    TlsBadCertificate = "tls_bad_certificate", true, "the certificate breaks the rules for certificates";
    TlsTooOld = "tls_too_old", true, "the other side speaks only outdated or foreign TLS";
    TlsCut = "tls_cut", true, "the connection is cut while it is being secured";
    TlsTimeout = "tls_timeout", true, "the secure connection is not completed in time";
    TlsOther = "tls_other", true, "no secure connection can be made";
    ResolveTimeout = "timeout_resolve", true, "resolving the name takes too long";
    SendTimeout = "timeout_send", true, "sending takes too long";
    FirstByteTimeout = "timeout_first_byte", true, "the answer does not begin in time";
    Stalled = "timeout_stall", true, "the transfer stands still";
    TotalTimeout = "timeout_total", true, "the whole request takes too long";
    Slow = "slow", true, "the transfer is too slow to be of use";
    Throttled = "throttled", true, "the host asks to slow down";
    Server = "server_error", true, "the host has a fault";
    SasExpired = "sas_expired", true, "the signed access has expired, or a clock is wrong";
    Quota = "quota", true, "the host has no room left for this";
    Unauthorized = "unauthorized", false, "the host refuses this box's credentials";
    Forbidden = "forbidden", false, "the host forbids this";
    NotFound = "not_found", false, "the host does not know what was asked for";
    Gone = "gone", false, "what was asked for is gone";
    Refused = "refused", false, "the host refuses the request";
    Redirected = "redirected", true, "the answer leads elsewhere, as a login page of a network does";
    BadAnswer = "bad_answer", true, "the answer is not what was agreed";
    TooLarge = "too_large", false, "the answer is larger than it may be";
    Stopped = "stopped", true, "the request was ended from this side";
}

impl Cause {
    /// The cause for an answer's HTTP status, or `None` when the status is a success.
    #[must_use]
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            200..=299 => None,
            300..=399 => Some(Self::Redirected),
            401 => Some(Self::Unauthorized),
            403 => Some(Self::Forbidden),
            404 => Some(Self::NotFound),
            410 => Some(Self::Gone),
            511 => Some(Self::CaptivePortal),
            408 | 425 | 429 | 503 => Some(Self::Throttled),
            400..=499 => Some(Self::Refused),
            500..=599 => Some(Self::Server),
            _ => Some(Self::BadAnswer),
        }
    }

    /// Whether only a person can help: the condition is then shown at once, not after a second failure.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::OutsideContract
                | Self::ProxyAuth
                | Self::ProxyDigestOnly
                | Self::ProxyNtlmOnly
                | Self::ProxyScheme
                | Self::ProxyDenied
                | Self::CaptivePortal
                | Self::TlsIntercepted
                | Self::TlsUnknownIssuer
                | Self::TlsBadCertificate
                | Self::TlsTooOld
                | Self::TlsExpired
                | Self::TlsWrongHost
                | Self::TlsRevoked
                | Self::Unauthorized
                | Self::Forbidden
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_once() {
        let mut codes: Vec<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Cause::ALL.len());
    }

    #[test]
    fn statuses_are_sorted_into_later_and_never() {
        assert_eq!(Cause::of_status(204), None);
        for later in [302, 408, 429, 500, 502, 503, 504, 511] {
            assert!(Cause::of_status(later).unwrap().is_retryable(), "{later}");
        }
        for never in [400, 401, 403, 404, 409, 410, 413, 422] {
            assert!(!Cause::of_status(never).unwrap().is_retryable(), "{never}");
        }
    }
}
