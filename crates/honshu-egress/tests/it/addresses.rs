//! No request reaches an address that is not public, however its URL is written.

use std::time::Duration;

use honshu_egress::{
    AddressRule, AddressRules, Client, ClientOptions, EgressError, ErrorKind, parse_url,
};

use crate::server::{Answers, Server, get, local_client, text};

/// `PORT` is replaced by the port of a listener on this machine.
const FORGED: &[&str] = &[
    // Loopback, in every spelling.
    "http://127.0.0.1:PORT/",
    "http://127.0.0.2:PORT/",
    "http://127.255.255.254:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://127.1.1:PORT/",
    "http://2130706433:PORT/",
    "http://02130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7F.0.0.1:PORT/",
    "http://0x7f.1:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0177.1:PORT/",
    "http://017700000001:PORT/",
    "http://127.0.0.0x1:PORT/",
    "http://127.0.0.01:PORT/",
    "http://127.000.000.001:PORT/",
    "http://0x7f.0x0.0x0.0x1:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://127.0.0.1..:PORT/",
    "http://4294967297:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://0.0:PORT/",
    "http://00:PORT/",
    "http://0x0:PORT/",
    "http://1:PORT/",
    "http://256.256.256.256:PORT/",
    "http://localhost:PORT/",
    "http://LOCALHOST:PORT/",
    "http://localhost.:PORT/",
    "http://a.localhost:PORT/",
    "http://localhost.localdomain.localhost:PORT/",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/",
    "http://[::]:PORT/",
    "http://[0::0]:PORT/",
    // IPv4 inside IPv6.
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[::7f00:1]:PORT/",
    "http://[::ffff:0:127.0.0.1]:PORT/",
    "http://[::ffff:8.8.8.8]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b::7f00:1]:PORT/",
    "http://[64:ff9b:1::7f00:1]:PORT/",
    "http://[64:ff9b::a9fe:a9fe]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[2002:a9fe:a9fe::1]:PORT/",
    "http://[2001:0:7f00:1::]:PORT/",
    "http://[2001::1]:PORT/",
    // Private, shared, link-local, unique local.
    "http://10.0.0.1:PORT/",
    "http://10.255.255.255:PORT/",
    "http://172.16.0.1:PORT/",
    "http://172.31.255.255:PORT/",
    "http://192.168.0.1:PORT/",
    "http://192.168.255.255:PORT/",
    "http://100.64.0.1:PORT/",
    "http://100.127.255.255:PORT/",
    "http://169.254.0.1:PORT/",
    "http://[fe80::1]:PORT/",
    "http://[febf::1]:PORT/",
    "http://[fe80::1%25eth0]:PORT/",
    "http://[fe80::1%eth0]:PORT/",
    "http://[fc00::1]:PORT/",
    "http://[fd12::1]:PORT/",
    "http://[fec0::1]:PORT/",
    "http://0xa000001:PORT/",
    "http://012.0.0.1:PORT/",
    "http://10.1:PORT/",
    "http://0xc0a80001:PORT/",
    "http://3232235521:PORT/",
    // Metadata services.
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/latest/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    // Multicast, broadcast, documentation, benchmarks, future use.
    "http://224.0.0.1:PORT/",
    "http://239.255.255.250:PORT/",
    "http://255.255.255.255:PORT/",
    "http://240.0.0.1:PORT/",
    "http://192.0.2.1:PORT/",
    "http://198.51.100.1:PORT/",
    "http://203.0.113.1:PORT/",
    "http://198.18.0.1:PORT/",
    "http://198.19.255.255:PORT/",
    "http://192.0.0.1:PORT/",
    "http://192.88.99.1:PORT/",
    "http://[ff02::1]:PORT/",
    "http://[2001:db8::1]:PORT/",
    "http://[3fff::1]:PORT/",
    "http://[100::1]:PORT/",
    "http://[5f00::1]:PORT/",
    "http://[4000::1]:PORT/",
    "http://[2001:20::1]:PORT/",
    "http://[2001:2::1]:PORT/",
    // User names and backslashes, which parsers read differently.
    "http://user@127.0.0.1:PORT/",
    "http://user:pass@127.0.0.1:PORT/",
    "http://example.com@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT@example.com/",
    "http://example.com:80@127.0.0.1:PORT/",
    "http://@127.0.0.1:PORT/",
    "http://example.com\\@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\\@example.com/",
    "http:\\\\127.0.0.1:PORT\\",
    "http:/\\127.0.0.1:PORT/",
    "http://127.0.0.1\\:PORT/",
    "http://example.com#@127.0.0.1:PORT\\/",
    // Escapes, other scripts, white space, control characters.
    "http://127.0.0.1%00.example.com:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://127%2e0%2e0%2e1:PORT/",
    "http://１２７.0.0.1:PORT/",
    "http://127。0。0。1:PORT/",
    "http://ⓛocalhost:PORT/",
    "http://loc\u{ad}alhost:PORT/",
    "http://127.0.0.1 :PORT/",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/\r\nHost: x",
    "http://127.0.0.1\t:PORT/",
    "http://exa mple.com/",
    "http://127.0.0.1:PORT/\0",
    "http://[::1:PORT/",
    "http://::1:PORT/",
    "http://[127.0.0.1]:PORT/",
    "http://[v1.::1]:PORT/",
    "http://-a.com:PORT/",
    "http://a..b:PORT/",
    "http://.:PORT/",
    "http://:PORT/",
    // Ports.
    "http://127.0.0.1:0/",
    "http://127.0.0.1:/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:+80/",
    "http://127.0.0.1:99999999999/",
    "http://127.0.0.1:PORT:80/",
    "http://127.0.0.1: 80/",
    // Other schemes and no scheme.
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
    "ftp://127.0.0.1:PORT/",
    "dict://127.0.0.1:PORT/",
    "ldap://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/",
    "jar:http://127.0.0.1:PORT/!/",
    "unix:///run/docker.sock",
    "data:text/plain,x",
    "javascript:alert(1)",
    "//127.0.0.1:PORT/",
    "127.0.0.1:PORT",
    "http:127.0.0.1:PORT",
    "http:///127.0.0.1:PORT/",
    "",
    "http://",
    "https://",
];

#[tokio::test]
async fn forged_urls_reach_nothing() {
    assert!(FORGED.len() >= 150, "{}", FORGED.len());
    let server = Server::http(|_| text("secret")).await;
    let client = Client::new(ClientOptions {
        connect_timeout: Duration::from_secs(2),
        ..ClientOptions::default()
    });
    for forged in FORGED {
        for scheme in ["http", "https"] {
            let url = forged
                .replace("PORT", &server.address.port().to_string())
                .replacen("http:", &format!("{scheme}:"), 1);
            let error = match parse_url(&url) {
                Err(error) => EgressError::from(error),
                Ok(uri) => client
                    .send(http::Request::get(uri).body(bytes::Bytes::new()).unwrap())
                    .await
                    .map(|_| ())
                    .expect_err(&url),
            };
            assert!(
                matches!(error.kind(), ErrorKind::Url | ErrorKind::Refused),
                "{url}: {error:?}"
            );
            assert!(!error.may_have_reached_upstream());
            // A URI that was parsed without our rules meets them all the same.
            if let Ok(uri) = url.parse::<http::Uri>() {
                let request = http::Request::get(uri).body(bytes::Bytes::new()).unwrap();
                client.send(request).await.map(|_| ()).expect_err(&url);
            }
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_is_checked_by_its_addresses() {
    let server = Server::http(|_| text("secret")).await;
    let url = format!("http://rebind.test:{}/", server.address.port());
    for answers in [
        &[&["127.0.0.1"][..]][..],
        &[&["10.0.0.1", "127.0.0.1"]],
        &[&["::1"]],
        &[&["::ffff:127.0.0.1"]],
        &[&["169.254.169.254"]],
        &[&["fd00:ec2::254"]],
        &[&["0.0.0.0"]],
    ] {
        let options = ClientOptions {
            resolver: Some(Answers::new(answers)),
            ..ClientOptions::default()
        };
        let error = Client::new(options).send(get(&url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{answers:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_second_answer_of_the_name_server_is_checked_too() {
    let server = Server::http(|_| {
        let mut response = text("once");
        response
            .headers_mut()
            .insert("connection", "close".parse().unwrap());
        response
    })
    .await;
    let options = ClientOptions {
        resolver: Some(Answers::new(&[&["127.0.0.1"], &["127.0.0.2"]])),
        allow: AddressRules::public_only()
            .allow_cidr("127.0.0.1/32")
            .unwrap(),
        ..ClientOptions::default()
    };
    let client = Client::new(options);
    let url = format!("http://rebind.test:{}/", server.address.port());
    let body = client.send(get(&url)).await.unwrap().into_body();
    assert_eq!(body.collect_bounded(10).await.unwrap(), "once");
    let error = client.send(get(&url)).await.unwrap_err();
    assert!(
        matches!(
            error,
            EgressError::Refused {
                rule: AddressRule::Loopback,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_the_operator_wrote_is_allowed_and_nothing_beside_it() {
    let server = Server::http(|_| text("hello")).await;
    let other = Server::http(|_| text("secret")).await;
    let base_url = server.url("/v1");
    let options = ClientOptions {
        allow: AddressRules::public_only().allow_url(&base_url).unwrap(),
        ..ClientOptions::default()
    };
    let client = Client::new(options);
    let response = client.send(get(&server.url("/v1/models"))).await.unwrap();
    assert_eq!(
        response.into_body().collect_bounded(10).await.unwrap(),
        "hello"
    );
    assert_eq!(
        client.send(get(&other.url("/"))).await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert_eq!(other.connections(), 0);
    assert_eq!(
        local_client()
            .send(get(&other.url("/")))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[test]
fn rules_name_the_range() {
    use AddressRule as R;
    for (ip, rule) in [
        ("127.0.0.1", Some(R::Loopback)),
        ("10.1.2.3", Some(R::Private)),
        ("172.15.0.1", None),
        ("172.32.0.1", None),
        ("100.63.0.1", None),
        ("100.128.0.1", None),
        ("169.254.169.254", Some(R::Metadata)),
        ("169.254.1.1", Some(R::LinkLocal)),
        ("100.64.0.1", Some(R::SharedAddressSpace)),
        ("100.100.100.200", Some(R::Metadata)),
        ("0.0.0.0", Some(R::Unspecified)),
        ("224.0.0.1", Some(R::Multicast)),
        ("8.8.8.8", None),
        ("1.1.1.1", None),
        ("192.0.1.1", None),
        ("198.17.0.1", None),
        ("223.255.255.255", None),
        ("::1", Some(R::Loopback)),
        ("::", Some(R::Unspecified)),
        ("fc00::1", Some(R::UniqueLocal)),
        ("fe80::1", Some(R::LinkLocal)),
        ("64:ff9b::1", Some(R::Nat64)),
        ("2002::1", Some(R::SixToFour)),
        ("2001::1", Some(R::Teredo)),
        ("::ffff:1.2.3.4", Some(R::MappedIpv4)),
        ("::1.2.3.4", Some(R::MappedIpv4)),
        ("ff02::1", Some(R::Multicast)),
        ("2001:db8::1", Some(R::Reserved)),
        ("2606:4700::1111", None),
        ("2001:4860:4860::8888", None),
        ("2400:cb00::1", None),
        ("fd00:ec2::254", Some(R::Metadata)),
    ] {
        assert_eq!(AddressRule::of(ip.parse().unwrap()), rule, "{ip}");
    }
}

#[test]
fn networks_are_read_strictly_and_matched_by_prefix() {
    for wrong in [
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "x/8",
        "fd00::/129",
        "",
        "/",
        "10.0.0/8",
    ] {
        assert!(
            AddressRules::public_only().allow_cidr(wrong).is_err(),
            "{wrong}"
        );
    }
    let rules = AddressRules::public_only()
        .allow_cidr("10.20.0.0/16")
        .unwrap()
        .allow_cidr("fd00:1::/32")
        .unwrap();
    for (ip, allowed) in [
        ("10.20.255.1", true),
        ("10.21.0.1", false),
        ("fd00:1:ffff::1", true),
        ("fd00:2::1", false),
        ("127.0.0.1", false),
        ("8.8.8.8", true),
    ] {
        assert_eq!(
            rules.check("h", 1, ip.parse().unwrap()).is_ok(),
            allowed,
            "{ip}"
        );
    }
    let all = AddressRules::public_only().allow_cidr("0.0.0.0/0").unwrap();
    assert!(all.check("h", 1, "127.0.0.1".parse().unwrap()).is_ok());
    assert!(all.check("h", 1, "::1".parse().unwrap()).is_err());
}

#[test]
fn a_host_is_allowed_in_every_spelling_of_itself() {
    let rules = AddressRules::public_only()
        .allow_host_port("Upstream.Internal.", 8000)
        .allow_host_port("[::1]", 1);
    let ip = "10.0.0.1".parse().unwrap();
    assert!(rules.check("upstream.internal", 8000, ip).is_ok());
    assert!(rules.check("upstream.internal", 8001, ip).is_err());
    assert!(rules.check("other.internal", 8000, ip).is_err());
    assert!(
        rules
            .check("0:0:0:0:0:0:0:1", 1, "::1".parse().unwrap())
            .is_ok()
    );
}
