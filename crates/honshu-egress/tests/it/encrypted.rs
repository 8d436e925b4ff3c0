//! TLS, and what it negotiates.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use honshu_egress::{CertificateDer, Client, ClientOptions, ErrorKind};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsAcceptor;

use crate::server::{Answers, Server, get, local_options, serve_http, text};

/// TLS for the name `models.test`, and the certificate to trust.
fn acceptor(protocol: &[u8]) -> (TlsAcceptor, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["models.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    (TlsAcceptor::from(Arc::new(config)), certificate)
}

async fn encrypted(protocol: &'static [u8]) -> (Server, CertificateDer<'static>) {
    let (acceptor, certificate) = acceptor(protocol);
    let server = Server::raw(move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(tcp).await else {
                return;
            };
            if protocol == b"h2" {
                let service = service_fn(|_| async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Ok::<_, Infallible>(text("two"))
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            } else {
                serve_http(stream, Arc::new(|_| text("one"))).await;
            }
        }
    })
    .await;
    (server, certificate)
}

fn client(certificate: Option<CertificateDer<'static>>) -> Client {
    Client::new(ClientOptions {
        extra_roots: certificate.into_iter().collect(),
        resolver: Some(Answers::new(&[&["127.0.0.1"]])),
        ..local_options()
    })
}

#[tokio::test]
async fn http1_over_tls_reuses_its_connection() {
    let (server, certificate) = encrypted(b"http/1.1").await;
    let client = client(Some(certificate));
    let url = format!("https://models.test:{}/", server.address.port());
    for _ in 0..10 {
        let response = client.send(get(&url)).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_11);
        assert_eq!(
            response.into_body().collect_bounded(10).await.unwrap(),
            "one"
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn http2_shares_connections_and_opens_more_when_they_are_full() {
    let (server, certificate) = encrypted(b"h2").await;
    let client = client(Some(certificate));
    let url = format!("https://models.test:{}/", server.address.port());
    let send = || async {
        let response = client.send(get(&url)).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(
            response.into_body().collect_bounded(10).await.unwrap(),
            "two"
        );
    };
    futures_util::future::join_all((0..100).map(|_| send())).await;
    assert_eq!(server.connections(), 1);
    futures_util::future::join_all((0..250).map(|_| send())).await;
    assert_eq!(server.connections(), 3);
    send().await;
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn an_unknown_certificate_and_a_wrong_name_are_refused() {
    let (server, certificate) = encrypted(b"http/1.1").await;
    let port = server.address.port();
    for (client, host) in [
        (client(None), "models.test"),
        (client(Some(certificate)), "other.test"),
    ] {
        let error = client
            .send(get(&format!("https://{host}:{port}/")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have_reached_upstream()),
            (ErrorKind::Tls, false),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn leaving_an_http2_stream_resets_it_and_keeps_the_connection() {
    let (acceptor, certificate) = acceptor(b"h2");
    let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::raw(move |tcp| {
        let (acceptor, gone) = (acceptor.clone(), gone.clone());
        async move {
            let stream = acceptor.accept(tcp).await.unwrap();
            let service = service_fn(move |_| {
                let gone = gone.clone();
                async move {
                    let body = Endless { gone, sent: false };
                    Ok::<_, Infallible>(http::Response::new(body))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    let client = client(Some(certificate));
    let url = format!("https://models.test:{}/", server.address.port());
    for _ in 0..3 {
        let mut response = client.send(get(&url)).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        tokio::time::timeout(Duration::from_millis(250), is_gone.recv())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(server.connections(), 1);
}

/// One piece, then nothing, until somebody drops it.
struct Endless {
    gone: tokio::sync::mpsc::UnboundedSender<()>,
    sent: bool,
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.gone.send(());
    }
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.sent {
            return std::task::Poll::Pending;
        }
        self.sent = true;
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"a")))))
    }
}
