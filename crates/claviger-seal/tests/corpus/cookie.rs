//! The value of one of our cookies. Only what we sealed opens, only as what it is, and as it was
//! sealed to the last character.
//!
//! The first line of an input says what follows: `as-is`, a value as a browser sends it, or the
//! kind of cookie whose contents follow and are sealed here, as another release might have.

use claviger_core::{
    AccessToken, CodeVerifier, ProviderName, ReturnTo, SessionId, SessionSecret, Subject, Timestamp, Version,
    limits::{COOKIE_BYTES, SESSION_COOKIE_BYTES},
};
use claviger_seal::{
    CachedToken, CookieIdentity, CookiePurpose, KeyId, Keyring, LoginCookie, OpenError, RootKey,
    SessionCookie, cookies::NAME_BYTES,
};

pub(crate) const OUTCOMES: [&str; 6] = ["session", "token", "login", "unknown-key", "invalid", "no-input"];

const NONCE: [u8; 12] = [9; 12];
/// It stands in every secret that the inputs of `as-is` hold.
const CANARY: &str = "canary";

/// Opens a value as each kind of cookie, and checks what opened.
pub(crate) fn check(input: &[u8]) -> &'static str {
    let ring = ring(&[2, 1]);
    let line = input.iter().position(|byte| *byte == b'\n');
    let Some((kind, rest)) = line.map(|end| (&input[..end], &input[end + 1..])) else { return "no-input" };
    let purpose = match kind {
        b"as-is" => {
            let Ok(value) = std::str::from_utf8(rest.strip_suffix(b"\n").unwrap_or(rest)) else {
                return "no-input";
            };
            let outcome = open(&ring, value);
            let ours = [1, 2].into_iter().flat_map(|key| samples(&self::ring(&[key])));
            let is_ours = ours.into_iter().any(|sealed| sealed == value);
            assert_eq!(is_ours, !matches!(outcome, "invalid" | "unknown-key"), "{value}");
            return outcome;
        }
        b"session" => CookiePurpose::Session,
        b"token" => CookiePurpose::CachedToken,
        b"login" => CookiePurpose::Login,
        _ => return "no-input",
    };
    open(&ring, &ring.seal_cookie(purpose, rest, NONCE))
}

/// Opens a value as each kind. At most one opens it.
fn open(ring: &Keyring, value: &str) -> &'static str {
    let session = SessionCookie::open(ring, value);
    let token = CachedToken::open(ring, value);
    let login = LoginCookie::open(ring, value);
    let shown = format!("{session:?} {token:?} {login:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    let opened = [session.is_ok(), token.is_ok(), login.is_ok()];
    assert!(opened.iter().filter(|opened| **opened).count() <= 1, "a value opens as one kind");
    if opened.contains(&true) {
        assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        assert!(value.len() <= COOKIE_BYTES);
    }
    match (session, token, login) {
        (Ok(cookie), ..) => {
            let again = cookie.seal(ring, NONCE);
            assert!(NAME_BYTES + again.len() < SESSION_COOKIE_BYTES);
            let again = SessionCookie::open(ring, &again).unwrap();
            assert_eq!((again.session, again.good_until), (cookie.session, cookie.good_until));
            assert_eq!(again.secret.expose(), cookie.secret.expose());
            if let Some(identity) = again.identity {
                assert_eq!(identity.subject, cookie.identity.unwrap().subject, "never another user");
            }
            "session"
        }
        (_, Ok(cached), _) => {
            let again = cached.seal(ring, NONCE).map(|again| CachedToken::open(ring, &again).unwrap());
            assert!(again.is_none_or(|again| again.token.expose() == cached.token.expose()));
            "token"
        }
        (.., Ok(login)) => {
            let again = LoginCookie::open(ring, &login.seal(ring, NONCE)).unwrap();
            assert_eq!((again.state, &again.provider), (login.state, &login.provider));
            assert_eq!(ReturnTo::parse(login.return_to.as_str()), Some(login.return_to));
            "login"
        }
        (Err(error), Err(other), Err(third)) => {
            let same_key = matches!(error, OpenError::UnknownKey(_));
            assert!(!same_key || error == other && other == third, "all kinds have one key");
            if same_key { "unknown-key" } else { "invalid" }
        }
    }
}

/// What `as-is` may open.
fn samples(ring: &Keyring) -> Vec<String> {
    let session = SessionCookie {
        session: SessionId::from_bytes([2; 16]),
        secret: SessionSecret::new(*b"canary-canary-canary-canary-cana"),
        good_until: Timestamp::from_millis(1_790_000_000_123),
        identity: Some(CookieIdentity {
            subject: Subject { provider: ProviderName("twitch".into()), id: "141981764".into() },
            display_name: "Ada".into(),
        }),
    };
    let token = CachedToken {
        session: session.session,
        generation: Version(3),
        token: AccessToken::new(CANARY),
        expires_at: Timestamp::from_millis(4),
    };
    let login = LoginCookie {
        provider: ProviderName("twitch".into()),
        state: *b"canary-canary-canary-canary-cana",
        verifier: CodeVerifier::new(CANARY),
        redirect_uri: "https://app.example/auth/callback".into(),
        return_to: ReturnTo::parse("/canary").unwrap(),
        started_at: Timestamp::from_millis(1_790_000_000_123),
        repairs: None,
    };
    let nonce = |last| [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, last];
    vec![session.seal(ring, nonce(1)), token.seal(ring, nonce(2)).unwrap(), login.seal(ring, nonce(3))]
}

fn ring(keys: &[u8]) -> Keyring {
    let root = |id: &u8| RootKey::new(KeyId(u32::from(*id)), [*id; 32]);
    Keyring::new(keys.iter().map(root).collect()).unwrap()
}
