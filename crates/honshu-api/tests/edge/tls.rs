//! Certificates: read, read again, and kept when the new ones are bad.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use honshu_api::edge::Tls;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Server, read_all, short_limits, start_with, statuses};

fn write_pair(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let signing_key: KeyPair = signing_key;
    std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn open(directory: &Path) -> Result<Tls, honshu_api::edge::TlsError> {
    Tls::open(&directory.join("cert.pem"), &directory.join("key.pem"))
}

pub(crate) async fn dial(
    server: &Server,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
}

async fn get(server: &Server, trusted: &CertificateDer<'static>) -> bool {
    let Ok(mut stream) = dial(server, trusted, b"http/1.1").await else {
        return false;
    };
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let (answer, _) = read_all(&mut stream, Duration::from_secs(2)).await;
    statuses(&answer, false) == [200]
}

#[tokio::test]
async fn new_files_are_taken_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let first = write_pair(directory.path());
    let tls = Arc::new(open(directory.path()).unwrap());
    let server = start_with(short_limits(), Some(tls)).await;
    assert!(get(&server, &first).await);

    // A half-written certificate: the first one stays.
    std::fs::write(directory.path().join("cert.pem"), "-----BEGIN CERT").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(get(&server, &first).await);

    let second = write_pair(directory.path());
    let mut taken = false;
    for _ in 0..100 {
        taken = get(&server, &second).await;
        if taken {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(taken);
    assert!(!get(&server, &first).await);
}

#[tokio::test]
async fn bad_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("cert.pem"), "{error}");
    write_pair(directory.path());
    std::fs::write(directory.path().join("key.pem"), "nothing").unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
    let other = tempfile::tempdir().unwrap();
    write_pair(other.path());
    std::fs::copy(
        other.path().join("key.pem"),
        directory.path().join("key.pem"),
    )
    .unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("do not fit"), "{error}");
}

#[tokio::test]
async fn clear_text_and_silence_on_a_tls_port_end() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path());
    let server = start_with(
        short_limits(),
        Some(Arc::new(open(directory.path()).unwrap())),
    )
    .await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"",
        b"\x16\x03\x01",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let (answer, closed) = read_all(&mut stream, Duration::from_secs(3)).await;
        assert!(closed);
        assert!(!answer.starts_with(b"HTTP/"));
    }
}

#[tokio::test]
async fn http2_is_spoken_where_it_was_agreed() {
    let directory = tempfile::tempdir().unwrap();
    let trusted = write_pair(directory.path());
    let server = start_with(
        short_limits(),
        Some(Arc::new(open(directory.path()).unwrap())),
    )
    .await;
    let stream = dial(&server, &trusted, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let answer = crate::http2::get(stream, "https://localhost/x").await;
    assert_eq!(answer, (200, "first localhost /x 0\n".to_owned()));
}
