//! The places for connections and requests.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::request::network::Network;
use claviger_engine::{Metric, MetricKind};
use metrics::counter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::timer;

/// The places, limited in all and for one address. A connection takes one, and so does each open
/// request of an HTTP/2 connection. So the number of connections to the app is limited too.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    of_addresses: Arc<Addresses>,
}

/// Those whose places are not counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusted {
    pub(super) networks: Vec<Network>,
    /// Those that use a Unix socket.
    pub(super) unix: bool,
}

/// An address, or none for all that use a Unix socket.
type Source = Option<IpAddr>;

#[derive(Debug)]
struct Addresses {
    /// Maximum number for one address that is not trusted.
    each: usize,
    trusted: Trusted,
    taken: Mutex<HashMap<Source, usize>>,
    /// When the log last said that an address has too many.
    told: Mutex<Option<Instant>>,
}

/// Counts addresses that had too many connections or requests.
pub(crate) static REFUSED: Metric = Metric {
    name: "claviger_refused_connections_total",
    kind: MetricKind::Counter,
    labels: "",
    help: "Connections, and requests over HTTP/2, that were refused because their address had too many. If it is a proxy \
           in front, add it to `trusted_proxies`.",
};

/// How often the log says at most that an address has too many.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The place of a connection or request. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

/// One of the places of an address that is not trusted.
#[derive(Debug)]
struct OfAddress {
    addresses: Arc<Addresses>,
    address: Source,
}

impl Places {
    pub(super) fn new(in_all: usize, each: usize, trusted: Trusted) -> Self {
        Self {
            free: Arc::new(Semaphore::new(in_all)),
            of_addresses: Arc::new(Addresses {
                each,
                trusted,
                taken: Mutex::default(),
                told: Mutex::default(),
            }),
        }
    }

    /// Waits until a place is free for a connection from this address, unless it has too many.
    pub(super) async fn take(&self, address: Source) -> Option<Place> {
        let of_address = self.of_addresses.take(address)?;
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(Place { _permit: permit, _of_address: of_address })
    }

    /// Takes a place for a request from this address, unless all are taken or it has too many.
    pub(super) fn take_at_once(&self, address: Source) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, _of_address: self.of_addresses.take(address)? })
    }
}

impl Addresses {
    /// Takes one of the places of this address, if they are counted, unless it has too many.
    fn take(self: &Arc<Self>, address: Source) -> Option<Option<OfAddress>> {
        let address = address.map(|address| address.to_canonical());
        let trusted = &self.trusted;
        let in_network = |address| trusted.networks.iter().any(|network| network.contains(address));
        if address.map_or(trusted.unix, in_network) {
            return Some(None);
        }
        let address = address.map(network);
        let mut taken = self.lock();
        let count = taken.entry(address).or_default();
        if *count >= self.each {
            drop(taken);
            self.refuse(address);
            return None;
        }
        *count += 1;
        Some(Some(OfAddress { addresses: Arc::clone(self), address }))
    }

    /// Counts a refusal, and tells of it now and then.
    fn refuse(&self, address: Source) {
        counter!(REFUSED.name).increment(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(&mut told, timer::now()) {
            tracing::warn!(
                address = address.map_or_else(|| "unix:".to_owned(), |address| address.to_string()),
                "refused a connection or a request, because the address has too many: if it is a proxy in front, add it \
                 to trusted_proxies; otherwise see limits.connections_per_address"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        // A panic cannot leave the map inconsistent, because each critical section is short.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut taken = self.addresses.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

fn is_due(told: &mut Option<Instant>, now: Instant) -> bool {
    let due = told.is_none_or(|told| now >= told + TOLD_EVERY);
    if due {
        *told = Some(now);
    }
    due
}

/// One IPv6 subscriber has at least a /64 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_log_tells_of_refusals_once_a_minute() {
        let (mut told, begun) = (None, timer::now());
        let seconds = [(0, true), (1, false), (59, false), (60, true), (61, false), (200, true)];
        for (after, expected) in seconds {
            assert_eq!(is_due(&mut told, begun + Duration::from_secs(after)), expected, "{after}");
        }
    }

    #[test]
    fn each_refusal_is_counted() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let places = Places::new(100, 1, Trusted::default());
            let address = Some(Ipv6Addr::LOCALHOST.into());
            let _kept = places.take_at_once(address).unwrap();
            assert!(places.take_at_once(address).is_none(), "a request");
            assert!(places.take(address).now_or_never().unwrap().is_none(), "a connection");
        });
        let shown = recorder.handle().render();
        assert!(shown.contains(&format!("{} 2\n", REFUSED.name)), "{shown}");
    }

    #[tokio::test]
    async fn the_places_of_an_address_are_limited_except_for_a_trusted_proxy() {
        let networks = vec!["10.0.0.1".parse().unwrap()];
        let places = Places::new(100, 2, Trusted { networks, unix: false });
        let mut kept = Vec::new();
        let table = [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::3", true),
            ("10.0.0.1", true),
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("unix:", true),
            ("unix:", true),
            ("unix:", false),
        ];
        for (address, expected) in table {
            let place = places.take(address.parse().ok()).await;
            assert_eq!(place.is_some(), expected, "{address}");
            kept.extend(place);
        }
        let places_for_front = Places::new(1, 0, Trusted { networks: Vec::new(), unix: true });
        assert!(places_for_front.take(None).await.is_some());
        kept.clear();
        assert!(places.of_addresses.lock().is_empty(), "a closed connection leaves nothing behind");
        assert_eq!(places.free.available_permits(), 100);
    }
}
