//! An app behind TLS.

use std::{
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use http::{StatusCode, header};
use rustls::{
    ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::world::{World, listen};

/// Creates an untrusted certificate, if there is a tool for it.
fn self_signed(directory: &Path) -> Option<ServerConfig> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(directory)
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return None;
    }
    let certificate = CertificateDer::from_pem_file(directory.join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    Some(ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
}

/// Accepts one connection, and returns the result of the handshake.
fn shake_hands(listener: &TcpListener, config: ServerConfig) -> std::io::Result<(usize, usize)> {
    let (mut stream, _) = listener.accept()?;
    ServerConnection::new(Arc::new(config)).map_err(std::io::Error::other)?.complete_io(&mut stream)
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused() {
    claviger_gateway::choose_tls();
    let directory = tempfile::tempdir().unwrap();
    let Some(config) = self_signed(directory.path()) else {
        println!("left out: openssl is not there to make a certificate");
        return;
    };
    let listener = listen();
    let app = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let shaken = thread::spawn(move || shake_hands(&listener, config));
    let everybody = "[[routes]]\npath = \"/\"\nassurance = \"none\"";
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer({
        let lines = lines.clone();
        move || lines.clone()
    });
    let _logged = tracing::subscriber::set_default(subscriber.finish());
    let world = World::before_url(&app, everybody).await;

    let answer = world.get("/").header(header::ACCEPT, "text/html").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(answer.text().await.unwrap().contains("The app is not answering"));
    let alert = shaken.join().unwrap().unwrap_err().to_string();
    assert!(alert.contains("alert"), "{alert}");
    let told = lines.text();
    assert!(told.contains("the app is not answering") && told.contains("certificate"), "{told}");
    // The gateway continues.
    assert_eq!(world.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
}
