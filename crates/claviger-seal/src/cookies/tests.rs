use claviger_core::{limits::SHORT_RETURN_TO_BYTES, limits::TOKEN_BYTES};
use proptest::prelude::*;

use super::*;
use crate::{envelope::KeyId, keyring::RootKey};

const NONCE: Nonce = [9; 12];

fn ring() -> Keyring {
    Keyring::new(vec![RootKey::new(KeyId(1), [1; 32])]).unwrap()
}

fn session_cookie(provider: &str, id: &str, display_name: &str) -> SessionCookie {
    SessionCookie {
        session: SessionId::from_bytes([2; 16]),
        secret: SessionSecret::new([3; 32]),
        good_until: Timestamp::from_millis(1_790_000_000_123),
        identity: Some(CookieIdentity {
            subject: Subject { provider: ProviderName(provider.into()), id: id.into() },
            display_name: display_name.into(),
        }),
    }
}

fn login(redirect_uri: &str, return_to: &str) -> LoginCookie {
    LoginCookie {
        provider: ProviderName("twitch".into()),
        state: [7; 32],
        verifier: CodeVerifier::new("v".repeat(43)),
        redirect_uri: redirect_uri.into(),
        return_to: ReturnTo::parse(return_to).unwrap(),
        started_at: Timestamp::from_millis(1_790_000_000_123),
        repairs: None,
    }
}

fn cached(token: &str) -> CachedToken {
    CachedToken {
        session: SessionId::from_bytes([2; 16]),
        generation: Version(3),
        token: AccessToken::new(token),
        expires_at: Timestamp::from_millis(-4),
    }
}

#[test]
fn a_long_identity_is_cut_or_left_out() {
    // The last column: bytes of the display name that remain, or `None` without an identity.
    let table = [
        ("twitch", "141981764".to_owned(), "Ⓣwitch_dev".to_owned(), Some(12)),
        ("twitch", "141981764".to_owned(), "x".repeat(87), Some(87)),
        ("twitch", "141981764".to_owned(), "x".repeat(88), Some(87)),
        ("twitch", "141981764".to_owned(), "ä".repeat(64), Some(86)),
        ("twitch", "141981764".to_owned(), "😀".repeat(64), Some(84)),
        ("twitch", "1".repeat(96), "x".repeat(64), Some(0)),
        ("twitch", "1".repeat(97), "x".to_owned(), None),
        ("twitch", "1".repeat(255), String::new(), None),
        ("", String::new(), String::new(), Some(0)),
    ];
    for (provider, id, name, left) in table {
        let cookie = session_cookie(provider, &id, &name);
        let sealed = cookie.seal(&ring(), NONCE);
        assert!(NAME_BYTES + sealed.len() < SESSION_COOKIE_BYTES, "{}", sealed.len());
        let opened = SessionCookie::open(&ring(), &sealed).unwrap();
        let expected = left.map(|left| session_cookie(provider, &id, &name[..left]).identity.unwrap());
        assert_eq!(opened.identity, expected, "{id} {name}");
    }
}

#[test]
fn the_cookie_of_an_ordinary_user_is_small() {
    let sealed = session_cookie("twitch", "141981764", "TwitchDev").seal(&ring(), NONCE);
    assert_eq!(sealed.len(), 155);
}

#[test]
fn a_token_too_large_for_a_cookie_is_not_sealed() {
    let longest = PLAIN_BYTES - 16 - 8 - 8 - 2;
    let sealed = cached(&"x".repeat(longest)).seal(&ring(), NONCE).unwrap();
    assert_eq!(NAME_BYTES + sealed.len(), COOKIE_BYTES);
    assert!(CachedToken::open(&ring(), &sealed).is_ok());
    assert_eq!(cached(&"x".repeat(longest + 1)).seal(&ring(), NONCE), None);
    assert_eq!(cached(&"x".repeat(TOKEN_BYTES)).seal(&ring(), NONCE), None);
}

#[test]
fn a_short_return_to_fits_beside_an_ordinary_redirect_uri() {
    let longest = format!("/{}", "a".repeat(SHORT_RETURN_TO_BYTES - 1));
    let redirect_uri = "https://app.example/auth/callback";
    let sealed = login(redirect_uri, &longest).seal(&ring(), NONCE);
    assert_eq!(LoginCookie::open(&ring(), &sealed).unwrap().return_to.as_str(), longest);
    let sealed = login(&format!("https://app.example/{}", "b".repeat(2500)), &longest).seal(&ring(), NONCE);
    assert!(NAME_BYTES + sealed.len() <= COOKIE_BYTES);
    assert_eq!(LoginCookie::open(&ring(), &sealed).unwrap().return_to, ReturnTo::lost());
}

#[test]
fn debug_shows_no_secret() {
    let shown = format!(
        "{:?} {:?} {:?}",
        login("https://app.example/", "/canary"),
        session_cookie("twitch", "141981764", "name"),
        cached("canary"),
    );
    assert!(!shown.contains("canary") && !shown.contains("vvv"), "{shown}");
    assert!(!shown.contains("7, 7") && !shown.contains("3, 3"), "{shown}");
}

#[test]
fn a_cookie_of_one_kind_does_not_open_as_another() {
    let ring = ring();
    let session = session_cookie("twitch", "1", "name").seal(&ring, NONCE);
    let login = login("https://app.example/", "/").seal(&ring, NONCE);
    let cached = cached("token").seal(&ring, NONCE).unwrap();
    for other in [&login, &cached] {
        assert_eq!(SessionCookie::open(&ring, other).unwrap_err(), OpenError::Invalid);
    }
    for other in [&session, &cached] {
        assert_eq!(LoginCookie::open(&ring, other).unwrap_err(), OpenError::Invalid);
    }
    for other in [&session, &login] {
        assert_eq!(CachedToken::open(&ring, other).unwrap_err(), OpenError::Invalid);
    }
}

proptest! {
    #[test]
    fn every_session_cookie_is_short_and_opens(
        session: [u8; 16],
        secret: [u8; 32],
        good_until: i64,
        identity in proptest::option::of(("\\PC{0,20}", "\\PC{0,150}", "\\PC{0,150}")),
        nonce: Nonce,
    ) {
        let identity = identity.map(|(provider, id, display_name)| CookieIdentity {
            subject: Subject { provider: ProviderName(provider), id },
            display_name,
        });
        let cookie = SessionCookie {
            session: SessionId::from_bytes(session),
            secret: SessionSecret::new(secret),
            good_until: Timestamp::from_millis(good_until),
            identity,
        };
        let sealed = cookie.seal(&ring(), nonce);
        prop_assert!(NAME_BYTES + sealed.len() < SESSION_COOKIE_BYTES);
        let opened = SessionCookie::open(&ring(), &sealed).unwrap();
        prop_assert_eq!(opened.session, cookie.session);
        prop_assert_eq!(opened.secret.expose(), cookie.secret.expose());
        prop_assert_eq!(opened.good_until, cookie.good_until);
        match (opened.identity, cookie.identity) {
            (Some(opened), Some(sealed)) => {
                prop_assert_eq!(opened.subject, sealed.subject);
                prop_assert!(sealed.display_name.starts_with(&opened.display_name));
            }
            (None, Some(sealed)) => {
                prop_assert!(sealed.subject.provider.0.len() + sealed.subject.id.len() > 100);
            }
            (None, None) => {}
            (Some(_), None) => prop_assert!(false, "an identity that was not sealed"),
        }
    }

    #[test]
    fn login_and_token_cookies_open(
        state: [u8; 32],
        provider in "[a-z]{1,20}",
        verifier in "[A-Za-z0-9._~-]{43,128}",
        redirect_uri in "https://[a-z]{1,60}/[a-z/]{0,60}",
        path in "/[a-z0-9?=&]{0,200}",
        millis: i64,
        repaired: Option<[u8; 16]>,
        token in "[!-~]{1,2000}",
        generation: u64,
    ) {
        let cookie = LoginCookie {
            provider: ProviderName(provider),
            state,
            verifier: CodeVerifier::new(verifier),
            redirect_uri,
            return_to: ReturnTo::parse(&path).unwrap(),
            started_at: Timestamp::from_millis(millis),
            repairs: repaired.map(SessionId::from_bytes),
        };
        let opened = LoginCookie::open(&ring(), &cookie.seal(&ring(), NONCE)).unwrap();
        prop_assert_eq!(opened.provider, cookie.provider);
        prop_assert_eq!(opened.state, cookie.state);
        prop_assert_eq!(opened.verifier.expose(), cookie.verifier.expose());
        prop_assert_eq!(opened.redirect_uri, cookie.redirect_uri);
        prop_assert_eq!(opened.return_to, cookie.return_to);
        prop_assert_eq!(opened.started_at, cookie.started_at);
        prop_assert_eq!(opened.repairs, cookie.repairs);

        let cached = CachedToken { generation: Version(generation), ..cached(&token) };
        let opened = CachedToken::open(&ring(), &cached.seal(&ring(), NONCE).unwrap()).unwrap();
        prop_assert_eq!((opened.session, opened.generation), (cached.session, cached.generation));
        prop_assert_eq!((opened.token.expose(), opened.expires_at), (token.as_str(), cached.expires_at));
    }

    #[test]
    fn arbitrary_text_does_not_open(text in "\\PC{0,200}|AQAAAAE[A-Za-z0-9_-]{0,300}") {
        prop_assert!(SessionCookie::open(&ring(), &text).is_err());
        prop_assert!(LoginCookie::open(&ring(), &text).is_err());
        prop_assert!(CachedToken::open(&ring(), &text).is_err());
    }

    #[test]
    fn arbitrary_contents_do_not_panic(plain in proptest::collection::vec(any::<u8>(), 0..200)) {
        let ring = ring();
        let _ = SessionCookie::open(&ring, &ring.seal_cookie(CookiePurpose::Session, &plain, NONCE));
        let _ = LoginCookie::open(&ring, &ring.seal_cookie(CookiePurpose::Login, &plain, NONCE));
        let _ = CachedToken::open(&ring, &ring.seal_cookie(CookiePurpose::CachedToken, &plain, NONCE));
    }
}
