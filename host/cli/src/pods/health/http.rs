//! An HTTP GET as kubelet makes it: no proxy, no look at certificates, redirects followed on the same host only.

use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::redirect::{Attempt, Policy};

use super::super::plan::HttpGet;
use super::{Failure, address};

const REDIRECTS: usize = 10;

pub(super) async fn get(host: &str, get: &HttpGet) -> Result<(), Failure> {
    let scheme = if get.https { "https" } else { "http" };
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let url = format!("{scheme}://{}{path}", address(host, get.port));
    let failed = |cause: &reqwest::Error| Failure::HttpRequest { url: url.clone(), cause: innermost(cause) };
    // Fails when there is one already, which then is this one.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .redirect(Policy::custom(same_host))
        .build()
        .map_err(|error| failed(&error))?;
    let answer = client.get(&url).headers(headers(&get.headers)).send().await.map_err(|error| failed(&error))?;
    let status = answer.status().as_u16();
    if (200..400).contains(&status) { Ok(()) } else { Err(Failure::Http { url, status }) }
}

/// A redirect to elsewhere is itself the answer.
fn same_host(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("too many redirects");
    }
    let from = attempt.previous().first().and_then(|url| url.host_str().map(str::to_owned));
    if attempt.url().host_str() == from.as_deref() { attempt.follow() } else { attempt.stop() }
}

/// Those of the manifest, whose form has been checked, over kubelet's own.
fn headers(wanted: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("kube-probe/husk-", env!("CARGO_PKG_VERSION"))));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers
}

/// reqwest's own text says only that something failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with the next of `answers`; tells what it was asked.
    async fn server(answers: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let count = connection.read(&mut buffer).await.unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..count]).to_lowercase());
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (port, served)
    }

    /// Answers one connection over TLS, with a certificate for another name that nobody has signed.
    async fn tls_server() -> u16 {
        let pem = include_bytes!("self-signed.pem");
        let (certificate, key) =
            (CertificateDer::from_pem_slice(pem).unwrap(), PrivateKeyDer::from_pem_slice(pem).unwrap());
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (connection, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
            let mut connection = acceptor.accept(connection).await.unwrap();
            assert_ne!(connection.read(&mut [0; 4096]).await.unwrap(), 0);
            connection.write_all(OK.as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn nobody_looks_at_certificates() {
        let port = tls_server().await;
        get("127.0.0.1", &HttpGet { port, https: true, ..HttpGet::default() }).await.unwrap();
        // Nobody speaks TLS here.
        let (port, _served) = server(&[OK]).await;
        let error =
            get("127.0.0.1", &HttpGet { port, https: true, ..HttpGet::default() }).await.unwrap_err().to_string();
        assert!(error.contains(&format!("https://127.0.0.1:{port}/")), "{error}");
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn headers_and_host_are_the_manifests() {
        let (port, served) = server(&[OK]).await;
        let wanted = HttpGet {
            port,
            path: "healthz?a=b".into(),
            headers: vec![("Host".into(), "web.example".into()), ("X-A".into(), "1".into())],
            ..HttpGet::default()
        };
        get("127.0.0.1", &wanted).await.unwrap();
        let asked = served.await.unwrap().remove(0);
        for part in ["get /healthz?a=b http/1.1", "host: web.example", "x-a: 1", "user-agent: kube-probe/"] {
            assert!(asked.contains(part), "{part}: {asked}");
        }
        assert_eq!(asked.matches("host:").count(), 1, "{asked}");
    }

    #[tokio::test]
    async fn an_error_is_a_failure_and_a_redirect_elsewhere_is_none() {
        const ELSEWHERE: &str =
            "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        const BROKEN: &str = "HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let (port, _served) = server(&[ELSEWHERE, BROKEN]).await;
        let wanted = HttpGet { port, ..HttpGet::default() };
        get("127.0.0.1", &wanted).await.unwrap();
        let error = get("127.0.0.1", &wanted).await.unwrap_err().to_string();
        assert_eq!(error, format!("GET http://127.0.0.1:{port}/ was answered 503"));
    }
}
