//! Headers that say something about a request which only a proxy in front may say: from where it
//! came, how it was asked for, and who sent it.
//!
//! Apps believe them, and any client can send them. So the reverse proxy removes them all and sets
//! `X-Forwarded-For`, `-Proto` and `-Host` itself. `proxy.pass_headers` lets others pass.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

/// Names of claims, folded. Those that end with `-` stand for all names that begin so.
const CLAIMS: &[&str] = &[
    // From where a request came. `is_claim` knows more of these by their shape.
    "x-real-",
    "client-ip",
    "x-proxyuser-ip",
    "x-originating-ip",
    "wl-proxy-",
    "-wsra",
    "-wsrh",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cf-visitor",
    "cloudfront-viewer-address",
    "fastly-ssl",
    "x-appengine-",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-envoy-",
    "x-nf-client-connection-ip",
    // How it was asked for.
    "x-original-",
    "x-rewrite-",
    "x-host",
    "x-http-host-override",
    "disguised-host",
    "was-default-hostname",
    "-wssn",
    "-wssp",
    "-wssc",
    "-wsis",
    "x-scheme",
    "x-url-scheme",
    "x-proxyscheme",
    "x-proxyhost",
    "x-proxyport",
    "x-proxycontextpath",
    "front-end-https",
    METHOD_OVERRIDES[0],
    METHOD_OVERRIDES[1],
    METHOD_OVERRIDES[2],
    // By which path. Some servers take these for a part of the address that was asked for, so that
    // the app would serve another path than the one that was judged.
    "script-name",
    "x-script-name",
    "path-info",
    "x-ingress-path",
    "x-rstudio-root-path",
    "x-rstudio-request",
    "x-middleware-subrequest",
    "x-middleware-rewrite",
    "x-matched-path",
    "x-now-route-matches",
    "x-invoke-",
    // Who sent it.
    "remote-",
    "x-remote-",
    "x-webauth-",
    "x-authenticated-",
    "x-authentik-",
    "x-pomerium-",
    "x-vouch-",
    "x-consumer-",
    "x-anonymous-consumer",
    "x-credential-identifier",
    "x-credential-username",
    "auth-user",
    "gap-auth",
    "cas-user",
    "x-user",
    "x-proxy-user",
    "x-rstudio-username",
    "x-proxiedentitieschain",
    "x-id-token",
    "x-jwt-assertion",
    "teleport-jwt-assertion",
    "x-token-subject",
    "x-token-user-",
    "oidc-",
    "mellon-",
    "shib-",
    "eppn",
    "sm-",
    "iv-",
    "-wsru",
    "-wsat",
    "-wspr",
    "tailscale-",
    "ngrok-auth-user-",
    "cf-access-",
    "x-amzn-oidc-",
    "x-goog-authenticated-user-",
    "x-goog-iap-jwt-assertion",
    "x-ms-client-principal",
    "x-ms-client-principal-",
    "x-ms-token-",
    "x-amzn-mtls-",
    "x-client-dn",
    "x-client-verify",
    "x-ssl-",
    "ssl-client-",
    "-wscc",
    "-wscs",
    // What servers take for their own settings.
    "proxy",
    "x-sendfile-type",
    "x-accel-mapping",
];

/// Ends of the names of claims.
const ENDS: [&str; 3] = ["-client-ip", "-connecting-ip", "-userinfo"];

/// Parts of the names of claims about a client's certificate.
const CERTIFICATES: [&[u8]; 2] = [b"client-cert", b"clientcert"];

/// Names that say where a request ends. A server that folds names may take another spelling for
/// them, so only the right one passes.
const FRAMING: [&str; 7] =
    ["transfer-encoding", "content-length", "connection", "keep-alive", "te", "trailer", "upgrade"];

/// The claims that a browser's script may make honestly: to send another method than a form can.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// The claims that the reverse proxy makes itself.
const OURS: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// The claims that pass although clients could make them.
#[derive(Clone, Debug, Default)]
pub struct Passing(std::sync::Arc<[HeaderName]>);

impl Passing {
    /// Lets these names pass.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether a claim of this name passes. A trusted proxy may make those on the list. An override
    /// of the method may be made by anybody, but not on a safe method, which the guard against
    /// cross-site requests lets through.
    fn lets(&self, name: &HeaderName, from_front: bool, safe_method: bool) -> bool {
        self.0.contains(name) && if is_method_override(name.as_str()) { !safe_method } else { from_front }
    }
}

/// Removes the claims that do not pass, and misspelt names that say where a request ends.
pub fn remove(headers: &mut HeaderMap, passing: &Passing, from_front: bool, safe_method: bool) {
    let goes = |name: &&HeaderName| {
        let folded = fold(name.as_str());
        is_folded_claim(&folded) && !passing.lets(name, from_front, safe_method)
            || is_misspelt(name.as_str(), &folded)
    };
    let removed: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    for name in removed {
        tracing::debug!(%name, "a header that only a proxy in front may set was removed");
        headers.remove(name);
    }
}

/// Whether a header of this name makes a claim, in any spelling.
pub fn is_claim(name: &str) -> bool {
    is_folded_claim(&fold(name))
}

/// Whether the header passes only from trusted proxies, when it is on the list of those that pass.
pub fn needs_front(name: &str) -> bool {
    !is_method_override(name)
}

/// Whether Claviger sets the header itself, so that it can never pass.
pub fn is_set_by_us(name: &str) -> bool {
    OURS.contains(&name) || fold(name).starts_with("x-auth-")
}

fn is_method_override(name: &str) -> bool {
    METHOD_OVERRIDES.contains(&name)
}

fn is_folded_claim(name: &str) -> bool {
    let is_listed = |claim: &&str| match claim.ends_with('-') {
        true => begins_with(name, claim),
        false => name == *claim,
    };
    // Most names differ in the first letter.
    let may_match = |claim: &&&str| claim.as_bytes().first() == name.as_bytes().first();
    CLAIMS.iter().filter(may_match).any(is_listed)
        || ENDS.iter().any(|end| name.ends_with(end))
        || name.split('-').any(|part| part == "forwarded")
        || CERTIFICATES.iter().any(|part| name.as_bytes().windows(part.len()).any(|found| found == *part))
}

fn is_misspelt(name: &str, folded: &str) -> bool {
    FRAMING.contains(&folded) && !FRAMING.contains(&name)
}

/// A name as many servers see it: they fold `_`, or everything but letters and digits, to one
/// character.
fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Cow::Borrowed(name);
    }
    let folded = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    Cow::Owned(name.chars().map(folded).collect())
}

/// As [`str::starts_with`], which is slower for the many names that differ at once.
fn begins_with(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(|(byte, known)| byte == known)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The names that claims end in, for those that stand for several.
    const EXAMPLES: &[&str] = &[
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-access-token",
        "x-forwarded-client-cert",
        "x-original-url",
        "x-original-forwarded-for",
        "x-rewrite-url",
        "remote-user",
        "remote-groups",
        "x-remote-user",
        "x-remote-addr",
        // Known by their shape.
        "forwarded",
        "x-forwarded",
        "forwarded-for",
        "x-vercel-forwarded-for",
        "cloudfront-forwarded-proto",
        "x-original-forwarded-for",
        "http-client-ip",
        "akamai-client-ip",
        "true-client-ip",
        "x-true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "proxy-client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "cf-connecting-ip",
        "do-connecting-ip",
        "x-userinfo",
        "x-endpoint-api-userinfo",
        "x-apigateway-api-userinfo",
        "client-cert",
        "client-cert-chain",
        "x-client-cert",
        "x-client-cert-present",
        "x-client-certificate",
        "x-arr-clientcert",
        "x-amzn-mtls-clientcert-subject",
        "ssl-client-cert",
        // Those that a prefix stands for.
        "x-real-ip",
        "x-real-port",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-envoy-original-path",
        "x-appengine-user-email",
        "x-appengine-user-ip",
        "x-invoke-path",
        "oidc-claim-email",
        "oidc-access-token",
        "sm-user",
        "iv-user",
        "iv-groups",
        "shib-session-id",
        "x-token-user-email",
    ];

    /// What a client rewrites the path with that the app sees.
    #[test]
    fn no_client_says_by_which_path_it_asked() {
        for name in ["script_name", "path_info", "x-script-name", "x_script_name", "script.name", "$wsra"] {
            assert!(is_claim(name), "{name}");
        }
    }

    fn spellings(name: &str) -> [String; 4] {
        [name.to_owned(), name.replace('-', "_"), name.replace('-', "."), name.replacen('-', "_", 1)]
    }

    fn kept(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn every_claim_is_removed_in_every_spelling_from_every_peer() {
        let whole = CLAIMS.iter().map(|claim| match claim.strip_suffix('-') {
            Some(prefix) => format!("{prefix}-anything"),
            None => (*claim).to_owned(),
        });
        for name in whole.chain(EXAMPLES.iter().map(|name| (*name).to_owned())) {
            for spelling in spellings(&name) {
                for from_front in [false, true] {
                    let mut headers = HeaderMap::new();
                    headers.append(spelling.parse::<HeaderName>().unwrap(), HeaderValue::from_static("evil"));
                    headers
                        .append(spelling.parse::<HeaderName>().unwrap(), HeaderValue::from_static("twice"));
                    headers.append("accept", HeaderValue::from_static("*/*"));
                    remove(&mut headers, &Passing::default(), from_front, false);
                    assert_eq!(kept(&headers), ["accept"], "{spelling}");
                }
            }
        }
    }

    #[test]
    fn what_makes_no_claim_stays() {
        for name in [
            "accept",
            "host",
            "x-forward",
            "x-forwardedness",
            "x-realtime",
            "x-client-version",
            "x-client-info",
            "x-requested-with",
            "x-request-id",
            "traceparent",
            "proxyx",
            "remoteness",
            "x-hostname",
            "via",
            "x-csrf-token",
            "authorization",
            "x-api-key",
            "x-access-token",
            "x-token",
            "x-user-agent",
            "x-user-id",
            "x-user-token",
            "x-middleware-prefetch",
            "x-nextjs-data",
            "x-envoy",
            "x-clientcare",
            "destination",
            "impersonate-user",
            "content-length",
            "transfer-encoding",
        ] {
            assert!(!is_claim(name), "{name}");
        }
    }

    #[test]
    fn only_the_right_spelling_says_where_a_request_ends() {
        for name in FRAMING {
            for spelling in spellings(name) {
                let mut headers = HeaderMap::new();
                headers.append(spelling.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
                let passing = Passing::new(spelling.parse::<HeaderName>());
                remove(&mut headers, &passing, true, false);
                assert_eq!(headers.is_empty(), spelling != name, "{spelling}");
            }
        }
    }

    #[test]
    fn a_setting_lets_claims_of_trusted_proxies_pass() {
        let names = ["x-forwarded-prefix", "x-client-cert", "x-http-method-override"];
        let passing = Passing::new(names.map(HeaderName::from_static));
        let table = [
            (true, false, &["x-client-cert", "x-forwarded-prefix", "x-http-method-override"][..]),
            (true, true, &["x-client-cert", "x-forwarded-prefix"]),
            (false, false, &["x-http-method-override"]),
            (false, true, &[]),
        ];
        for (from_front, safe_method, expected) in table {
            let mut headers = HeaderMap::new();
            for name in names.iter().chain(&["x_forwarded_prefix", "x-forwarded-user"]) {
                headers.append(*name, HeaderValue::from_static("1"));
            }
            remove(&mut headers, &passing, from_front, safe_method);
            let mut left = kept(&headers);
            left.sort_unstable();
            assert_eq!(left, expected, "{from_front} {safe_method}");
        }
    }

    #[test]
    fn what_claviger_sets_cannot_pass() {
        for (name, expected) in [
            ("x-forwarded-for", true),
            ("x-forwarded-host", true),
            ("x-auth-user", true),
            ("x_auth_user", true),
            ("x-forwarded-prefix", false),
            ("x-authority", false),
        ] {
            assert_eq!(is_set_by_us(name), expected, "{name}");
        }
    }
}
