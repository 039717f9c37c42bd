//! A relay to a local server that can be cut or fall silent.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Relays connections to one local port.
pub struct Relay {
    /// The address to connect to.
    pub port: u16,
    carried: Arc<Mutex<JoinSet<()>>>,
    silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (silent, is_silent) = watch::channel(false);
        let carried = Arc::<Mutex<JoinSet<()>>>::default();
        let accepting = tokio::spawn({
            let carried = Arc::clone(&carried);
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    let mut carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
                    while carried.try_join_next().is_some() {}
                    carried.spawn(connection(near, port, is_silent.clone()));
                }
            }
        });
        Self { port: own, carried, silent, accepting }
    }

    /// Cuts all connections, and returns how many there were. New ones are accepted.
    pub fn cut(&self) -> usize {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        while carried.try_join_next().is_some() {}
        let connections = carried.len();
        *carried = JoinSet::new();
        connections
    }

    /// Stops carrying bytes of old and new connections, or starts again.
    pub fn fall_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Cuts all connections and accepts no new ones.
    pub fn close(&self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(near: TcpStream, port: u16, silent: watch::Receiver<bool>) {
    let mut speaks = silent.clone();
    if speaks.wait_for(|silent| !silent).await.is_err() {
        return;
    }
    // If the server refuses connections, so does the relay.
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(carry(near_read, far_write, silent.clone()), carry(far_read, near_write, silent));
}

/// Carries one direction until its end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut silent: watch::Receiver<bool>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let speaks = silent.wait_for(|silent| !silent).await.is_ok();
        if !speaks || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
