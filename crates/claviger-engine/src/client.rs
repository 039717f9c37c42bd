//! The way to the provider over HTTP.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use claviger_core::limits;
use claviger_provider::Unanswered;

use crate::ProviderHttp;

/// Sends requests to the provider. It limits time and size, sends nothing twice, and follows no
/// redirect.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

impl HttpClient {
    /// Makes a client with the operating system's trusted certificates.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(limits::PROVIDER_CONNECT)
            .timeout(limits::PROVIDER_ANSWER)
            .pool_idle_timeout(limits::PROVIDER_IDLE_CONNECTION)
            .user_agent(concat!("claviger/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client })
    }
}

#[async_trait]
impl ProviderHttp for HttpClient {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, Unanswered> {
        let request = reqwest::Request::try_from(request).map_err(|_| Unanswered::NotSent)?;
        let mut answer = self.client.execute(request).await.map_err(|error| how_far(&error))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| Unanswered::NoAnswer)? {
            if body.len() + chunk.len() > limits::PROVIDER_ANSWER_BYTES {
                return Err(Unanswered::NoAnswer);
            }
            body.extend_from_slice(&chunk);
        }
        let mut whole = http::Response::new(body.freeze());
        *whole.status_mut() = answer.status();
        std::mem::swap(whole.headers_mut(), answer.headers_mut());
        Ok(whole)
    }
}

/// How far a request got. The error may contain the address, so only its causes are logged.
fn how_far(error: &reqwest::Error) -> Unanswered {
    if error.is_connect() || error.is_builder() {
        tracing::warn!(error = %Causes(error), "the provider could not be reached");
        return Unanswered::NotSent;
    }
    tracing::warn!(error = %Causes(error), "the provider gave no answer");
    Unanswered::NoAnswer
}

/// The causes of an error without the outermost one, which holds the address with its query.
struct Causes<'a>(&'a reqwest::Error);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut cause = std::error::Error::source(self.0);
        if cause.is_none() {
            return f.write_str(if self.0.is_timeout() { "timed out" } else { "unknown" });
        }
        let mut separator = "";
        while let Some(error) = cause {
            write!(f, "{separator}{error}")?;
            separator = ": ";
            cause = error.source();
        }
        Ok(())
    }
}
