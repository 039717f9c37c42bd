use claviger_core::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::keyring::RootKey;

const NONCE: Nonce = [9; 12];

fn ring(ids: &[u32]) -> Keyring {
    Keyring::new(ids.iter().map(|id| RootKey::new(KeyId(*id), [*id as u8; 32])).collect()).unwrap()
}

fn session(random: u8) -> SessionId {
    SessionId::new(Timestamp::from_millis(1_790_000_000_000), [random; 10])
}

fn secret(byte: u8) -> SessionSecret {
    SessionSecret::new([byte; 32])
}

fn access(token: &str, scopes: &[&str]) -> AccessPlain {
    AccessPlain { token: AccessToken::new(token), scopes: scopes.iter().map(|&s| s.to_owned()).collect() }
}

fn name(name: &str) -> ProviderName {
    ProviderName(name.to_owned())
}

/// Seals and opens one kind of blob.
struct BlobKind {
    name: &'static str,
    seal: fn(&Keyring, PairBinding<'_>) -> SealedBlob,
    open: fn(&Keyring, PairBinding<'_>, &SealedBlob) -> Result<String, OpenError>,
}

fn open_refresh(
    ring: &Keyring,
    at: PairBinding<'_>,
    lock: RefreshLock<'_>,
    blob: &SealedBlob,
) -> Result<String, OpenError> {
    ring.open_refresh(at, lock, blob).map(|token| token.expose().to_owned())
}

const KINDS: [BlobKind; 3] = [
    BlobKind {
        name: "access",
        seal: |ring, at| ring.seal_access(at, &access("token", &["a:b"]), NONCE),
        open: |ring, at, blob| ring.open_access(at, blob).map(|plain| plain.token.expose().to_owned()),
    },
    BlobKind {
        name: "refresh, device",
        seal: |ring, at| {
            ring.seal_refresh(at, RefreshLock::Device(&secret(5)), &RefreshToken::new("token"), NONCE)
        },
        open: |ring, at, blob| open_refresh(ring, at, RefreshLock::Device(&secret(5)), blob),
    },
    BlobKind {
        name: "refresh, server",
        seal: |ring, at| ring.seal_refresh(at, RefreshLock::Server, &RefreshToken::new("token"), NONCE),
        open: |ring, at, blob| open_refresh(ring, at, RefreshLock::Server, blob),
    },
];

#[test]
fn a_blob_opens_only_in_its_place() {
    let ring = ring(&[1]);
    let (twitch, twitch2, other) = (name("twitch"), name("twitch2"), name("other"));
    let at =
        |provider, session, generation| PairBinding { provider, session, generation: Version(generation) };
    let home = at(&twitch, session(1), 7);
    let elsewhere = [
        at(&twitch, session(2), 7),
        at(&twitch, session(1), 6),
        at(&twitch, session(1), 8),
        at(&other, session(1), 7),
        at(&twitch2, session(1), 7),
    ];
    for kind in &KINDS {
        let sealed = (kind.seal)(&ring, home);
        assert_eq!((kind.open)(&ring, home, &sealed).as_deref(), Ok("token"), "{}", kind.name);
        for place in elsewhere {
            assert_eq!(
                (kind.open)(&ring, place, &sealed),
                Err(OpenError::Invalid),
                "{} {place:?}",
                kind.name
            );
        }
        for other in KINDS.iter().filter(|other| other.name != kind.name) {
            let opened = (other.open)(&ring, home, &sealed);
            assert_eq!(opened, Err(OpenError::Invalid), "{} as {}", kind.name, other.name);
        }
    }
}

#[test]
fn a_device_blob_opens_with_its_secret_alone() {
    let twitch = name("twitch");
    let at = PairBinding { provider: &twitch, session: session(1), generation: Version(1) };
    let token = RefreshToken::new("token");
    let (own, another) = (secret(5), secret(6));
    let sealed = ring(&[1]).seal_refresh(at, RefreshLock::Device(&own), &token, NONCE);
    assert_eq!(sealed.0[..5], [1, 0, 0, 0, 0]);
    let open = |ids: &[u32], lock| open_refresh(&ring(ids), at, lock, &sealed);
    assert_eq!(open(&[1], RefreshLock::Device(&own)).as_deref(), Ok("token"));
    assert_eq!(
        open(&[2], RefreshLock::Device(&own)).as_deref(),
        Ok("token"),
        "the server's keys are not involved"
    );
    assert_eq!(open(&[1], RefreshLock::Device(&another)), Err(OpenError::Invalid));
    assert_eq!(open(&[1], RefreshLock::Server), Err(OpenError::Invalid));
}

#[test]
fn rows_open_after_a_key_rotation() {
    let twitch = name("twitch");
    let at = PairBinding { provider: &twitch, session: session(1), generation: Version(1) };
    for kind in KINDS.iter().filter(|kind| kind.name != "refresh, device") {
        let old = (kind.seal)(&ring(&[1]), at);
        let new = (kind.seal)(&ring(&[2, 1]), at);
        assert_eq!((kind.open)(&ring(&[2, 1]), at, &old).as_deref(), Ok("token"));
        assert_eq!((kind.open)(&ring(&[2]), at, &new).as_deref(), Ok("token"));
        assert_eq!((kind.open)(&ring(&[2]), at, &old), Err(OpenError::UnknownKey(KeyId(1))));
    }
}

#[test]
fn blobs_are_padded() {
    let twitch = name("twitch");
    let at = PairBinding { provider: &twitch, session: session(1), generation: Version(1) };
    let bytes =
        |token: &str, scopes: &[&str]| ring(&[1]).seal_access(at, &access(token, scopes), NONCE).0.len();
    assert_eq!(bytes("", &[]), 64 + envelope::OVERHEAD_BYTES);
    assert_eq!(bytes(&"x".repeat(30), &[]), bytes(&"x".repeat(40), &["user:read:email"]));
    assert_eq!(bytes(&"x".repeat(63), &[]), 128 + envelope::OVERHEAD_BYTES);
}

proptest! {
    #[test]
    fn sealing_round_trips(
        token in "\\PC{0,300}",
        scopes in proptest::collection::vec("\\PC{0,40}", 0..200),
        key: [u8; 32],
        id: [u8; 16],
        generation: u64,
        nonce: Nonce,
    ) {
        let ring = ring(&[1]);
        let twitch = name("twitch");
        let at = PairBinding { provider: &twitch, session: SessionId::from_bytes(id), generation: Version(generation) };
        let plain = AccessPlain { token: AccessToken::new(token.clone()), scopes };
        let opened = ring.open_access(at, &ring.seal_access(at, &plain, nonce)).unwrap();
        prop_assert_eq!(opened.token.expose(), &token);
        prop_assert_eq!(opened.scopes, plain.scopes);
        let secret = SessionSecret::new(key);
        for lock in [RefreshLock::Device(&secret), RefreshLock::Server] {
            let sealed = ring.seal_refresh(at, lock, &RefreshToken::new(token.clone()), nonce);
            prop_assert_eq!(open_refresh(&ring, at, lock, &sealed), Ok(token.clone()));
        }
    }

    #[test]
    fn any_change_is_detected(at_bit: prop::sample::Index, cut: prop::sample::Index, more: u8) {
        let ring = ring(&[1]);
        let twitch = name("twitch");
        let at = PairBinding { provider: &twitch, session: session(1), generation: Version(1) };
        for kind in &KINDS {
            let sealed = (kind.seal)(&ring, at);
            let mut flipped = sealed.clone();
            let bit = at_bit.index(sealed.0.len() * 8);
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!((kind.open)(&ring, at, &flipped).is_err());
            let truncated = SealedBlob(sealed.0[..cut.index(sealed.0.len())].to_vec());
            prop_assert!((kind.open)(&ring, at, &truncated).is_err());
            let mut longer = sealed;
            longer.0.push(more);
            prop_assert!((kind.open)(&ring, at, &longer).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_open(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), disguised: bool) {
        if disguised {
            for (byte, header) in bytes.iter_mut().zip([1, 0, 0, 0, 1]) {
                *byte = header;
            }
        }
        let twitch = name("twitch");
        let at = PairBinding { provider: &twitch, session: session(1), generation: Version(1) };
        for kind in &KINDS {
            prop_assert!((kind.open)(&ring(&[1]), at, &SealedBlob(bytes.clone())).is_err());
        }
    }
}
