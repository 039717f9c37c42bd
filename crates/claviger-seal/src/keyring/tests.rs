use claviger_core::RefreshToken;
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::envelope::OVERHEAD_BYTES;

const NONCE: Nonce = [9; 12];
const PURPOSES: [CookiePurpose; 3] =
    [CookiePurpose::Session, CookiePurpose::CachedToken, CookiePurpose::Login];

fn root(id: u32) -> RootKey {
    RootKey::new(KeyId(id), [id as u8; 32])
}

fn ring(ids: &[u32]) -> Keyring {
    Keyring::new(ids.iter().copied().map(root).collect()).unwrap()
}

#[test]
fn a_root_key_parses_its_own_encoding() {
    let key = RootKey::parse(root(7).encode().expose_secret()).unwrap();
    assert_eq!((key.id, *key.bytes), (KeyId(7), [7; 32]));
    assert_eq!(root(7).encode().expose_secret(), "7:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
    assert!(RootKey::parse(" 7:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n").is_ok());
}

#[test]
fn a_bad_root_key_is_refused_with_its_error() {
    let bytes = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let table = [
        (String::new(), KeyFormatError::Shape),
        (bytes.to_owned(), KeyFormatError::Shape),
        (format!(":{bytes}"), KeyFormatError::Id),
        (format!("0:{bytes}"), KeyFormatError::Id),
        (format!("+1:{bytes}"), KeyFormatError::Id),
        (format!("-1:{bytes}"), KeyFormatError::Id),
        (format!("a:{bytes}"), KeyFormatError::Id),
        (format!("4294967296:{bytes}"), KeyFormatError::Id),
        ("1:".to_owned(), KeyFormatError::Bytes),
        (format!("1:{bytes}="), KeyFormatError::Bytes),
        (format!("1:{bytes}AA"), KeyFormatError::Bytes),
        (format!("1:{}", &bytes[1..]), KeyFormatError::Bytes),
        (format!("1:+{}", &bytes[1..]), KeyFormatError::Bytes),
        (format!("1:{}", "A".repeat(43)), KeyFormatError::Zero),
    ];
    for (text, expected) in table {
        assert_eq!(RootKey::parse(&text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn a_keyring_needs_distinct_keys() {
    let error = |ids: &[u32]| Keyring::new(ids.iter().copied().map(root).collect()).unwrap_err();
    assert_eq!(error(&[]), KeyringError::Empty);
    assert_eq!(error(&[3, 2, 3]), KeyringError::Duplicate(KeyId(3)));
    assert_eq!(error(&[3, 0]), KeyringError::ReservedId);
}

#[test]
fn debug_shows_only_ids() {
    assert_eq!(format!("{:?}", root(77)), "RootKey(77, redacted)");
    assert_eq!(format!("{:?}", ring(&[77, 3])), "Keyring[77, 3]");
}

#[test]
fn a_cookie_opens_only_for_its_purpose() {
    let ring = ring(&[1]);
    for sealed_for in PURPOSES {
        let sealed = ring.seal_cookie(sealed_for, b"plain", NONCE);
        for opened_for in PURPOSES {
            let expected =
                if sealed_for == opened_for { Ok(b"plain".to_vec()) } else { Err(OpenError::Invalid) };
            assert_eq!(ring.open_cookie(opened_for, &sealed).map(|plain| plain.to_vec()), expected);
        }
    }
}

#[test]
fn the_cookie_format_is_stable() {
    let sealed = ring(&[258]).seal_cookie(CookiePurpose::Session, b"plain", NONCE);
    let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
    assert_eq!(bytes[..5], [1, 0, 0, 1, 2]);
    assert_eq!(bytes[5..17], NONCE);
    assert_eq!(bytes.len(), b"plain".len() + OVERHEAD_BYTES);
    // Computed independently of this code, by RFC 5869 and RFC 8452.
    assert_eq!(sealed, "AQAAAQIJCQkJCQkJCQkJCQnXpK9z8OIT6Inbms51inSIqcDNYec");
}

#[test]
fn the_first_key_seals_and_every_key_opens() {
    let old = ring(&[1]).seal_cookie(CookiePurpose::Session, b"old", NONCE);
    let rotated = ring(&[2, 1]);
    let new = rotated.seal_cookie(CookiePurpose::Session, b"new", NONCE);
    let open =
        |ring: &Keyring, sealed| ring.open_cookie(CookiePurpose::Session, sealed).map(|plain| plain.to_vec());
    assert_eq!(open(&rotated, &old), Ok(b"old".to_vec()));
    assert_eq!(open(&rotated, &new), Ok(b"new".to_vec()));
    assert_eq!(open(&ring(&[2]), &new), Ok(b"new".to_vec()));
    assert_eq!(open(&ring(&[2]), &old), Err(OpenError::UnknownKey(KeyId(1))));
    let impostor = Keyring::new(vec![RootKey::new(KeyId(1), [99; 32])]).unwrap();
    assert_eq!(open(&impostor, &old), Err(OpenError::Invalid));
}

#[test]
fn a_key_with_a_higher_id_is_newer() {
    let by = |id: u32| ring(&[id]).seal_cookie(CookiePurpose::Session, b"plain", NONCE);
    let table: [(&[u32], [bool; 3]); 5] = [
        (&[1], [false, false, false]),
        (&[1, 2], [false, false, false]),
        (&[2, 1], [true, false, false]),
        (&[2, 3, 1], [true, false, false]),
        (&[3], [true, true, false]),
    ];
    for (ids, outdated) in table {
        let ring = ring(ids);
        assert_eq!([1, 2, 3].map(|id| ring.is_cookie_outdated(&by(id))), outdated, "{ids:?}");
        assert_eq!(ring.has_older(), outdated[0] && ids.len() > 1, "{ids:?}");
    }
    for damaged in ["", "AQAAAA", "AQAAAAE!", "BQAAAAEJCQkJ", "\u{20ac}\u{20ac}\u{20ac}"] {
        assert!(!ring(&[3]).is_cookie_outdated(damaged), "{damaged}");
    }
}

#[test]
fn a_removed_key_opens_no_cookie() {
    let old = ring(&[1]).seal_cookie(CookiePurpose::Session, b"old", NONCE);
    let after = ring(&[2]).after(&ring(&[1]).after(&ring(&[3, 1])));
    assert_eq!(after.leaving().collect::<Vec<_>>(), [KeyId(1), KeyId(3)]);
    assert_eq!(after.open_cookie(CookiePurpose::Session, &old), Err(OpenError::UnknownKey(KeyId(1))));
    assert!(after.keys_of_row(&[&[1, 0, 0, 0, 1][..], &[0; 28]].concat()).is_ok());
    assert!(after.has_older() && !after.without_leaving().has_older());
    assert_eq!(ring(&[1, 3]).after(&after).leaving().collect::<Vec<_>>(), [KeyId(2)]);
}

#[test]
fn another_key_with_the_same_id_is_detected() {
    let impostor = Keyring::new(vec![root(2), RootKey::new(KeyId(1), [99; 32])]).unwrap();
    assert_eq!(impostor.contradicts(&ring(&[1])), Some(KeyId(1)));
    assert_eq!(impostor.contradicts(&ring(&[2])), None);
    assert_eq!(ring(&[2, 1]).contradicts(&ring(&[1, 3])), None);
}

#[test]
fn a_cookie_over_the_limit_is_refused() {
    let ring = ring(&[1]);
    let longest = COOKIE_BYTES * 3 / 4 - OVERHEAD_BYTES;
    let fits = ring.seal_cookie(CookiePurpose::Login, &vec![0; longest], NONCE);
    assert_eq!(fits.len(), COOKIE_BYTES);
    assert!(ring.open_cookie(CookiePurpose::Login, &fits).is_ok());
    let too_long = ring.seal_cookie(CookiePurpose::Login, &vec![0; longest + 1], NONCE);
    assert_eq!(ring.open_cookie(CookiePurpose::Login, &too_long), Err(OpenError::Invalid));
}

#[test]
fn fingerprints_differ_by_token_and_keyring() {
    let of = |ids: &[u32], token: &str| ring(ids).fingerprint(&RefreshToken::new(token)).0;
    assert_eq!(of(&[1], "a"), of(&[1, 2], "a"));
    assert_ne!(of(&[1], "a"), of(&[1], "b"));
    assert_ne!(of(&[1], "a"), of(&[2], "a"));
    assert_ne!(of(&[1], "a"), [0; 16]);
}

proptest! {
    #[test]
    fn sealing_round_trips(plain in proptest::collection::vec(any::<u8>(), 0..512), nonce: Nonce) {
        let ring = ring(&[1]);
        let sealed = ring.seal_cookie(CookiePurpose::Session, &plain, nonce);
        prop_assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(ring.open_cookie(CookiePurpose::Session, &sealed).unwrap().to_vec(), plain);
    }

    #[test]
    fn a_changed_character_is_detected(at: prop::sample::Index, to in "[A-Za-z0-9_=+/ -]") {
        let ring = ring(&[1]);
        let sealed = ring.seal_cookie(CookiePurpose::Session, b"some plain text", [3; 12]);
        let at = at.index(sealed.len());
        let changed = format!("{}{to}{}", &sealed[..at], &sealed[at + 1..]);
        prop_assert_eq!(ring.open_cookie(CookiePurpose::Session, &changed).is_ok(), changed == sealed);
        prop_assert!(ring.open_cookie(CookiePurpose::Session, &sealed[..at]).is_err());
    }

    #[test]
    fn arbitrary_text_does_not_open(text in "\\PC{0,200}|[A-Za-z0-9_-]{0,300}|AQAAAAE[A-Za-z0-9_-]{0,300}") {
        for purpose in PURPOSES {
            prop_assert!(ring(&[1]).open_cookie(purpose, &text).is_err());
        }
    }
}
