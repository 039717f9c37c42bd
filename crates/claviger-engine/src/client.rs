//! The way to the provider over HTTP.

use std::io::{self, Read};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use claviger_core::limits;
use claviger_provider::Unanswered;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH},
};

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
        let accepts = (ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(limits::PROVIDER_CONNECT)
            .timeout(limits::PROVIDER_ANSWER)
            .pool_idle_timeout(limits::PROVIDER_IDLE_CONNECTION)
            .default_headers(HeaderMap::from_iter([accepts]))
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
        let body = decode(answer.headers_mut(), body.freeze()).map_err(|error| {
            tracing::warn!(%error, "an answer of the provider cannot be decoded");
            Unanswered::NoAnswer
        })?;
        let mut whole = http::Response::new(body);
        *whole.status_mut() = answer.status();
        std::mem::swap(whole.headers_mut(), answer.headers_mut());
        Ok(whole)
    }
}

/// Decodes a body, and removes the headers that are about the encoded one (RFC 9110 section 8.4.1).
/// What has an encoding that we did not ask for stays as it is.
fn decode(headers: &mut HeaderMap, body: Bytes) -> io::Result<Bytes> {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
    let decoded = match encoding.as_str() {
        // Such as the answer to HEAD.
        _ if body.is_empty() => return Ok(body),
        "gzip" | "x-gzip" => read_limited(MultiGzDecoder::new(&*body))?,
        "deflate" if is_zlib(&body) => read_limited(ZlibDecoder::new(&*body))?,
        // Some servers leave out the zlib format.
        "deflate" => read_limited(DeflateDecoder::new(&*body))?,
        _ => return Ok(body),
    };
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    Ok(decoded)
}

/// Whether a body begins as RFC 1950 section 2.2 says.
fn is_zlib(body: &[u8]) -> bool {
    let Some((&[method, flags], _)) = body.split_first_chunk() else { return false };
    method & 0x0f == 8 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
}

/// Reads everything, unless it is longer than an answer may be.
fn read_limited(decoder: impl Read) -> io::Result<Bytes> {
    let (mut decoded, limit) = (Vec::new(), limits::PROVIDER_ANSWER_BYTES);
    decoder.take(limit as u64 + 1).read_to_end(&mut decoded)?;
    if decoded.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(decoded.into()) }
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_is_decoded_as_usual_clients_do() {
        let plain = b"{\"access_token\":\"a\"}".as_slice();
        let largest = vec![b' '; limits::PROVIDER_ANSWER_BYTES];
        let bomb = vec![b' '; limits::PROVIDER_ANSWER_BYTES + 1];
        let [mut flipped, cut] = [gzip(plain), gzip(plain)[..20].to_vec()];
        let checksum = flipped.len() - 8;
        flipped[checksum] ^= 1;
        let table = [
            ("gzip", gzip(plain), Some(plain)),
            ("x-gzip", gzip(plain), Some(plain)),
            (" GZIP ", gzip(plain), Some(plain)),
            ("gzip", [gzip(&plain[..9]), gzip(&plain[9..])].concat(), Some(plain)),
            ("deflate", zlib(plain), Some(plain)),
            ("deflate", deflate(plain), Some(plain)),
            ("gzip", gzip(&largest), Some(&largest)),
            ("gzip", gzip(&bomb), None),
            ("deflate", zlib(&bomb), None),
            ("deflate", deflate(&bomb), None),
            ("gzip", flipped, None),
            ("gzip", cut, None),
            ("gzip", plain.to_vec(), None),
            ("gzip", Vec::new(), Some(b"")),
            ("identity", plain.to_vec(), Some(plain)),
            ("br", plain.to_vec(), Some(plain)),
            ("", plain.to_vec(), Some(plain)),
        ];
        for (encoding, body, expected) in table {
            let mut headers = HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().unwrap())]);
            let decoded = decode(&mut headers, body.into()).ok();
            assert_eq!(decoded.as_deref(), expected, "{encoding:?}");
        }
    }

    #[test]
    fn a_decoded_body_has_no_headers_of_the_encoded_one() {
        let named = [(CONTENT_ENCODING, "gzip"), (CONTENT_LENGTH, "25")];
        let mut headers: HeaderMap =
            named.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
        decode(&mut headers, gzip(b"{}").into()).unwrap();
        assert!(headers.is_empty(), "{headers:?}");
    }
}
