#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::testing::{Reply, TOKEN, answer, binding, ok, redactor, secret, serve};
use address::AddressRefusal;
use mcpist_core::ids::Digest;

const MIB: u64 = 1 << 20;

fn get(path: &str) -> Request {
    Request {
        method: Method::Get,
        path: path.to_owned(),
        query: String::new(),
        headers: Vec::new(),
        body: None,
    }
}

async fn send(binding: &Binding, request: Request, token: &str) -> Result<Response, EgressError> {
    let service = Service::new(binding, 4).unwrap();
    let mut budget = Budget::new(8, 4 * MIB);
    service
        .send(request, &secret(token), &mut budget, &redactor(&[token]))
        .await
}

#[tokio::test]
async fn the_credential_goes_where_the_binding_says() {
    let service = serve(None, |_| ok("{}")).await;
    for (inject, header, value) in [
        (r#""bearer""#, "authorization", format!("Bearer {TOKEN}")),
        (
            r#""basic""#,
            "authorization",
            format!("Basic {}", BASE64.encode(TOKEN)),
        ),
        (r#"{"header":{"name":"x-key"}}"#, "x-key", TOKEN.to_owned()),
    ] {
        let binding = binding(service.port, &format!(r#"{{"inject":{inject}}}"#));
        send(&binding, get("/a"), TOKEN).await.unwrap();
        let seen = service.seen().pop().unwrap();
        assert_eq!(seen.header(header), Some(value.as_str()));
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert_eq!(seen.header("cookie"), None);
    }
    let binding = binding(service.port, r#"{"inject":{"query":{"name":"key"}}}"#);
    let request = Request {
        query: "a=b".into(),
        ..get("/a")
    };
    send(&binding, request, TOKEN).await.unwrap();
    let seen = service.seen().pop().unwrap();
    assert_eq!(
        seen.line(),
        "GET /a?a=b&key=tok-3f9a%2Fb%2Bc%3D7ZqX51 HTTP/1.1"
    );
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn a_module_cannot_set_what_is_not_its_own() {
    let service = serve(None, |_| ok("{}")).await;
    let with = |name: &str, value: &str| Request {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..get("/")
    };
    let plain = binding(service.port, "{}");
    for name in [
        "authorization",
        "cookie",
        "host",
        "proxy-authorization",
        "transfer-encoding",
    ] {
        let error = send(&plain, with(name, "x"), TOKEN).await.unwrap_err();
        assert_eq!(error, EgressError::Reserved(name.to_owned()));
    }
    let own = binding(service.port, r#"{"inject":{"header":{"name":"x-key"}}}"#);
    let error = send(&own, with("x-key", "x"), TOKEN).await.unwrap_err();
    assert_eq!(error, EgressError::Reserved("x-key".to_owned()));
    let own = binding(service.port, r#"{"inject":{"query":{"name":"key"}}}"#);
    for query in ["a=1&key=x", "k%65y=x", "key", "a=1&key"] {
        let request = Request {
            query: query.into(),
            ..get("/")
        };
        let error = send(&own, request, TOKEN).await.unwrap_err();
        assert_eq!(error, EgressError::Reserved("key".into()), "{query}");
    }
    let error = send(&plain, with("Authorization", "x"), TOKEN)
        .await
        .unwrap_err();
    assert_eq!(error, EgressError::Reserved("authorization".to_owned()));
    for value in ["a\r\nhost: evil", "a\nb", "a\0b"] {
        let error = send(&plain, with("x-a", value), TOKEN).await.unwrap_err();
        assert_eq!(error, EgressError::Header);
    }
    let error = send(&plain, get("/"), "line\r\nbreak-in-it")
        .await
        .unwrap_err();
    assert_eq!(
        (error.clone(), error.code()),
        (EgressError::Credential, error.code())
    );
    assert_eq!(service.requests(), 0);
}

#[tokio::test]
async fn nothing_leaves_that_the_binding_does_not_permit() {
    let service = serve(None, |_| ok("{}")).await;
    let binding = binding(service.port, r#"{"path_prefix":"/api","methods":["GET"]}"#);
    for path in [
        "/",
        "/apix",
        "/api/../x",
        "/api/%2e%2e/x",
        "/api/%2E./x",
        "/api/..;/x",
        "/api//x",
        "/api/a%2f..%2fb",
        "/api\\x",
        "/api/x?y",
        "/api/x#y",
        "api",
        "/api/%252e%252e/x",
    ] {
        let error = send(&binding, get(path), TOKEN).await.unwrap_err();
        assert!(
            matches!(error, EgressError::Binding(_)),
            "{path}: {error:?}"
        );
    }
    let post = Request {
        method: Method::Post,
        ..get("/api/x")
    };
    assert!(matches!(
        send(&binding, post, TOKEN).await,
        Err(EgressError::Binding(_))
    ));
    let fragment = Request {
        query: "a=b#c".into(),
        ..get("/api")
    };
    assert_eq!(
        send(&binding, fragment, TOKEN).await.unwrap_err(),
        EgressError::Url
    );
    assert_eq!(service.requests(), 0);
    send(&binding, get("/api/x"), TOKEN).await.unwrap();
    assert_eq!(service.requests(), 1);
}

#[tokio::test]
async fn local_addresses_are_refused_unless_the_binding_allows_them() {
    let service = serve(None, |_| ok("{}")).await;
    for host in ["127.0.0.1", "localhost"] {
        let refused = format!(r#"{{"host":"{host}","allow_local":false}}"#);
        let error = send(&binding(service.port, &refused), get("/"), TOKEN)
            .await
            .unwrap_err();
        assert_eq!(
            error,
            EgressError::Address(AddressRefusal::Loopback),
            "{host}"
        );
        assert_eq!(error.code().as_str(), "binding_refused");
        let allowed = format!(r#"{{"host":"{host}"}}"#);
        send(&binding(service.port, &allowed), get("/"), TOKEN)
            .await
            .unwrap();
    }
    for host in ["0.0.0.0", "::"] {
        let patch = format!(r#"{{"host":"{host}"}}"#);
        let error = send(&binding(service.port, &patch), get("/"), TOKEN)
            .await
            .unwrap_err();
        assert_eq!(
            error,
            EgressError::Address(AddressRefusal::NotUnicast),
            "{host}"
        );
    }
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_cookie_kept() {
    let target = serve(None, |_| ok("{}")).await;
    let location = format!(
        "location: http://127.0.0.1:{}/\r\nset-cookie: a=b\r\n",
        target.port
    );
    let service = serve(None, move |_| {
        Reply::Raw(answer("302 Found", &location, ""))
    })
    .await;
    let client = Service::new(&binding(service.port, "{}"), 4).unwrap();
    let mut budget = Budget::new(2, MIB);
    for _ in 0..2 {
        let response = client
            .send(get("/"), &secret(TOKEN), &mut budget, &redactor(&[]))
            .await
            .unwrap();
        assert_eq!(response.status, 302);
    }
    assert_eq!(target.connections(), 0);
    assert!(
        service
            .seen()
            .iter()
            .all(|seen| seen.header("cookie").is_none())
    );
    // The connection was kept, and the budget is used up.
    assert_eq!(service.connections(), 1);
    let error = client
        .send(get("/"), &secret(TOKEN), &mut budget, &redactor(&[]))
        .await;
    assert_eq!(error.unwrap_err(), EgressError::Requests(2));
}

#[tokio::test]
async fn a_flood_is_cut_off_announced_or_not() {
    let gigabyte = 1 << 30;
    for head in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {gigabyte}\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned(),
    ] {
        let service = serve(None, move |_| {
            Reply::Flood(head.clone().into_bytes(), gigabyte)
        })
        .await;
        let error = send(&binding(service.port, "{}"), get("/"), TOKEN)
            .await
            .unwrap_err();
        assert_eq!(error, EgressError::TooLarge(4 * MIB));
        assert!(
            (service.written() as u64) < 64 * MIB,
            "{}",
            service.written()
        );
    }
}

#[tokio::test]
async fn an_announced_flood_is_refused_before_its_first_byte() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
    let service = serve(None, move |_| Reply::Hang(head.into())).await;
    let binding = binding(service.port, "{}");
    let sent = tokio::time::timeout(Duration::from_secs(20), send(&binding, get("/"), TOKEN));
    assert_eq!(
        sent.await.unwrap().unwrap_err(),
        EgressError::TooLarge(4 * MIB)
    );
    service.until_closed(1).await;
}

#[tokio::test]
async fn garbage_is_a_coded_error_and_sent_once() {
    for reply in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\ngarbage",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "SSH-2.0-OpenSSH_9\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "",
    ] {
        let service = serve(None, move |_| Reply::Close(reply.into())).await;
        let post = Request {
            method: Method::Post,
            body: Some(("application/json", Bytes::from_static(b"{}"))),
            ..get("/")
        };
        let error = send(&binding(service.port, "{}"), post, TOKEN)
            .await
            .unwrap_err();
        assert_eq!(error, EgressError::Broken, "{reply}");
        assert_eq!(service.requests(), 1, "{reply}");
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_says_no_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = send(&binding(port, "{}"), get("/secret-path"), TOKEN)
        .await
        .unwrap_err();
    assert_eq!(error, EgressError::Unreachable);
    let shown = format!("{error} {error:?}");
    assert!(
        !shown.contains("127.0.0.1") && !shown.contains("secret-path"),
        "{shown}"
    );
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    for encoding in ["gzip", "br", "GZIP", "identity, gzip"] {
        let header = format!("content-encoding: {encoding}\r\n");
        let service = serve(None, move |_| Reply::Raw(answer("200 OK", &header, "x"))).await;
        let error = send(&binding(service.port, "{}"), get("/"), TOKEN)
            .await
            .unwrap_err();
        assert_eq!(error, EgressError::Encoded, "{encoding}");
    }
    let service = serve(None, |_| {
        Reply::Raw(answer("200 OK", "content-encoding: identity\r\n", "{}"))
    });
    assert!(
        send(&binding(service.await.port, "{}"), get("/"), TOKEN)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_echoed_credential_is_redacted_in_every_form_and_status() {
    let hex: String = TOKEN.bytes().map(|b| format!("{b:02x}")).collect();
    let percent: String = TOKEN.bytes().map(|b| format!("%{b:02X}")).collect();
    let escaped: String = TOKEN.bytes().map(|b| format!("\\u{b:04x}")).collect();
    let forms = [
        TOKEN.to_owned(),
        hex.to_uppercase(),
        hex,
        BASE64.encode(TOKEN),
        BASE64.encode(format!("u:{TOKEN}")),
        BASE64.encode(format!("user{TOKEN}")),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(TOKEN),
        percent,
        escaped,
    ];
    for status in ["200 OK", "401 Unauthorized", "500 Internal Server Error"] {
        for form in &forms {
            let body = format!(r#"{{"error":"bad key {form}!"}}"#);
            let headers = format!("www-authenticate: {TOKEN}\r\nset-cookie: {TOKEN}\r\n");
            let reply = answer(status, &headers, &body);
            let service = serve(None, move |_| Reply::Raw(reply.clone())).await;
            let response = send(&binding(service.port, "{}"), get("/"), TOKEN)
                .await
                .unwrap();
            let text = String::from_utf8(response.body).unwrap();
            assert!(
                response.hits == 1 && text.contains("[redacted]"),
                "{status} {form}: {text}"
            );
            assert!(text.starts_with(r#"{"error":"bad key "#), "{text}");
            assert!(!text.contains(&form[4..form.len() - 4]), "{text}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_read_in_seconds() {
    for (value, seconds) in [("7", 7), ("Wed, 21 Oct 2026 07:28:00 GMT", 5), ("-1", 5)] {
        let header = format!("retry-after: {value}\r\n");
        let service = serve(None, move |_| {
            Reply::Raw(answer("429 Too Many Requests", &header, ""))
        })
        .await;
        let response = send(&binding(service.port, "{}"), get("/"), TOKEN)
            .await
            .unwrap();
        assert_eq!(response.pause, Duration::from_secs(seconds), "{value}");
    }
}

/// A CA, and a server certificate of it for `name`.
fn authority(name: &str) -> (String, TlsAcceptor, Digest) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let pin = Digest::of(&key.subject_public_key_info());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (issuer.pem(), TlsAcceptor::from(Arc::new(config)), pin)
}

fn trusting(port: u16, host: &str, trust: serde_json::Value) -> Binding {
    let patch = serde_json::json!({"scheme": "https", "host": host, "trust": trust});
    binding(port, &patch.to_string())
}

#[tokio::test]
async fn https_trusts_the_bindings_ca_alone() {
    let (ca, acceptor, _) = authority("localhost");
    let (other, _, _) = authority("localhost");
    let service = serve(Some(acceptor), |_| ok("{}")).await;
    let with = |host: &str, pem: &str| trusting(service.port, host, serde_json::json!({"ca": pem}));
    assert_eq!(
        send(&with("localhost", &ca), get("/"), TOKEN)
            .await
            .unwrap()
            .status,
        200
    );
    let error = send(&with("localhost", &other), get("/"), TOKEN)
        .await
        .unwrap_err();
    assert_eq!(
        (error.clone(), error.code().as_str()),
        (EgressError::Tls, "upstream_tls")
    );
    // The right CA, and another name than the certificate's.
    let error = send(&with("127.0.0.1", &ca), get("/"), TOKEN)
        .await
        .unwrap_err();
    assert_eq!(error, EgressError::Tls);
    assert_eq!(service.requests(), 1);
}

#[tokio::test]
async fn a_pin_takes_one_key_whatever_the_name() {
    let (_, acceptor, pin) = authority("elsewhere.example");
    let (_, _, other) = authority("localhost");
    let service = serve(Some(acceptor), |_| ok("{}")).await;
    let with = |pin: Digest| {
        trusting(
            service.port,
            "localhost",
            serde_json::json!({"pin": pin.to_string()}),
        )
    };
    assert_eq!(send(&with(pin), get("/"), TOKEN).await.unwrap().status, 200);
    assert_eq!(
        send(&with(other), get("/"), TOKEN).await.unwrap_err(),
        EgressError::Tls
    );
    assert_eq!(service.requests(), 1);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_gets_nothing() {
    let (ca, _, _) = authority("localhost");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let binding = trusting(
        listener.local_addr().unwrap().port(),
        "localhost",
        serde_json::json!({"ca": ca}),
    );
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = vec![0; 4096];
        let count = stream.read(&mut got).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        got.truncate(count);
        got
    });
    assert_eq!(
        send(&binding, get("/"), TOKEN).await.unwrap_err(),
        EgressError::Tls
    );
    let got = server.await.unwrap();
    assert!(
        !got.windows(TOKEN.len())
            .any(|window| window == TOKEN.as_bytes())
    );
}

#[test]
fn a_ca_that_does_not_parse_is_refused_before_any_connection() {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = Service::new(&trusting(1, "h", serde_json::json!({"ca": pem})), 1).unwrap_err();
    assert_eq!(error, ServiceError::Trust(TrustError::Ca));
}
