//! A server of two regions, and a client that speaks plain HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use honshu_api::edge::{EdgeLimits, Listener, ListenerTag, serve};
use honshu_api::{App, AppParts, Readiness, RegionRoute};
use honshu_control::{AdminProfile, Bootstrap, Control, Initialised, Pepper};
use honshu_domain::{
    Backend, Catalogue, Clock, Error, Ocid, Principal, PrincipalKind, Region, SystemEntropy,
    Timeouts, Timestamp, UsageLog,
};
use honshu_gateway::{Call, Gateway, GatewayParts, Limits};
use honshu_provider::ScriptedProvider;
use honshu_responses::{Callers, Runtime, RuntimeParts, Seal};
use honshu_signature::PrivateKey;
use honshu_store::{DataDir, SqliteResponses, SqliteStore, Store};
use honshu_testkit::{MemoryCatalogue, MemoryUsageLog, SimClock, model};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::judge::judge;

pub(crate) const MODEL: &str = "honshu.scripted";
pub(crate) const ALIAS: &str = "openai.gpt-oss-120b";

pub(crate) fn osaka() -> Region {
    Region::new("ap-osaka-1", "KIX")
}

pub(crate) fn chicago() -> Region {
    Region::new("us-chicago-1", "ORD")
}

struct Known(Arc<Control>);

impl Callers for Known {
    fn again(
        &self,
        region: &str,
        kind: PrincipalKind,
        id: &Ocid,
        secret: Option<&str>,
    ) -> Option<Principal> {
        self.0.principal_again(region, kind, id, secret)
    }

    fn may_read_files(&self, call: &Call, error: Error) -> Result<(), Error> {
        self.0
            .may_read_files(&call.principal, &call.region, &call.compartment, error)
    }
}

pub(crate) struct House {
    pub(crate) clock: Arc<SimClock>,
    pub(crate) usage: Arc<MemoryUsageLog>,
    pub(crate) catalogue: Arc<MemoryCatalogue>,
    pub(crate) runtime: Runtime,
    pub(crate) root: Ocid,
    pub(crate) osaka: SocketAddr,
    pub(crate) chicago: SocketAddr,
    key_id: String,
    key: PrivateKey,
    stop: CancellationToken,
    router: axum::Router,
    _directory: DataDir,
    _home: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer, read to its end or to where it broke off.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body ended in good order.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The data of the events of a stream.
    pub(crate) fn events(&self) -> Vec<String> {
        self.text()
            .split("\n\n")
            .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
            .map(str::to_owned)
            .collect()
    }

    /// What every answer has: the ids, and for an error the shape of its plane.
    pub(crate) fn check(&self, what: &str) -> &Self {
        let id = self
            .header("x-request-id")
            .unwrap_or_else(|| panic!("{what}: no x-request-id"));
        let opc = self
            .header("opc-request-id")
            .unwrap_or_else(|| panic!("{what}: no opc-request-id"));
        assert!(
            id.len() == 32 && opc.ends_with(id),
            "{what}: `{id}` `{opc}`"
        );
        assert!(
            !self.status.is_server_error() || self.status == StatusCode::NOT_IMPLEMENTED,
            "{what}: {} {}",
            self.status,
            self.text()
        );
        if self.status.is_client_error() {
            assert_eq!(
                self.header("content-type"),
                Some("application/json"),
                "{what}"
            );
            let body = self.json();
            if body["type"] == "error" {
                // The Messages dialect has a shape of its own.
                let error = &body["error"];
                assert!(
                    error["type"].is_string() && error["message"].is_string(),
                    "{what}: {body}"
                );
                return self;
            }
            assert!(
                body["code"].is_string() && body["message"].is_string(),
                "{what}: {body}"
            );
            if let Some(error) = body.get("error") {
                for key in ["message", "type", "param", "code"] {
                    assert!(error.get(key).is_some(), "{what}: no {key} in {body}");
                }
            }
        }
        self
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with_timeouts(Timeouts::default()).await
    }

    pub(crate) async fn with_timeouts(timeouts: Timeouts) -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::new());
        let bootstrap = Bootstrap::new(Arc::clone(&clock) as _, Arc::new(SystemEntropy));
        let made = bootstrap.init(home.path(), &osaka()).await.unwrap();
        let Initialised::Made { tenancy, .. } = made else {
            panic!("an empty directory was initialised before")
        };
        let directory = DataDir::open(home.path()).unwrap();
        let pepper = Pepper::load_or_create(directory.path(), &SystemEntropy).unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory).unwrap());
        let regions = [osaka(), chicago()];
        let control = Control::open(
            store,
            pepper,
            regions.to_vec(),
            Arc::clone(&clock) as _,
            Arc::new(SystemEntropy),
        )
        .await
        .unwrap();
        let backend: Arc<dyn Backend> = Arc::new(ScriptedProvider::new("scripted"));
        let scripted = Arc::new(model(MODEL, backend));
        let catalogue = Arc::new(MemoryCatalogue::default());
        catalogue.insert(MODEL, Arc::clone(&scripted), false);
        catalogue.insert(ALIAS, scripted, true);
        let usage = Arc::new(MemoryUsageLog::default());
        let stop = CancellationToken::new();
        let gateways: HashMap<Arc<str>, Gateway> = regions
            .iter()
            .map(|region| {
                let gateway = Gateway::new(GatewayParts {
                    catalogue: Arc::clone(&catalogue) as Arc<dyn Catalogue>,
                    authorizer: Arc::new(control.authorizer(region)),
                    usage: Arc::clone(&usage) as Arc<dyn UsageLog>,
                    clock: Arc::clone(&clock) as _,
                    entropy: Arc::new(SystemEntropy),
                    limits: Limits::default(),
                    shutdown: stop.clone(),
                });
                (region.name_arc(), gateway)
            })
            .collect();
        let kept = Arc::new(SqliteResponses::open(&directory).unwrap());
        let runtime = Runtime::new(RuntimeParts {
            store: Arc::clone(&kept) as _,
            completions: Arc::clone(&kept) as _,
            files: kept,
            gateways: gateways.clone(),
            seal: Seal::new(&[7; 32]).unwrap(),
            callers: Arc::new(Known(Arc::clone(&control))),
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(SystemEntropy),
            limits: honshu_responses::Limits::default(),
            timeouts,
        });
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for region in &regions {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(socket.local_addr().unwrap());
            listeners.push(Listener {
                socket,
                tag: ListenerTag(region.name_arc()),
                tls: None,
            });
        }
        let app = App::new(AppParts {
            gateways,
            control,
            catalogue: Arc::clone(&catalogue) as _,
            clock: Arc::clone(&clock) as _,
            regions: regions
                .iter()
                .map(|region| RegionRoute {
                    region: region.clone(),
                    listener: Some(ListenerTag(region.name_arc())),
                    hosts: vec![format!("{}.example.com", region.name())],
                })
                .collect(),
            timeouts,
            runtime: runtime.clone(),
            readiness: Arc::new(Readiness::default()),
        });
        let router = app.router();
        tokio::spawn(serve(
            listeners,
            router.clone(),
            EdgeLimits::default(),
            stop.clone(),
            stop.clone(),
        ));
        let (key_id, key) = administrator(home.path());
        Self {
            clock,
            usage,
            catalogue,
            runtime,
            root: tenancy,
            osaka: addresses[0],
            chicago: addresses[1],
            key_id,
            key,
            stop,
            router,
            _directory: directory,
            _home: home,
        }
    }

    /// Every method and path of the router. It has no list to give; what it prints of itself has one.
    pub(crate) fn routes(&self) -> Vec<(String, String)> {
        const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
        let printed = format!("{:?}", self.router);
        let id_of = |text: &str| text.split(')').next().unwrap().to_owned();
        let mut served: HashMap<String, Vec<&str>> = HashMap::new();
        for entry in printed.split("RouteId(").skip(1) {
            let Some((_, methods)) = entry.split_once("MethodRouter { ") else {
                continue;
            };
            let methods = METHODS
                .into_iter()
                .filter(|method| !methods.contains(&format!("{method}: None")));
            // The fallback's own router follows and numbers from nought again.
            served
                .entry(id_of(entry))
                .or_insert_with(|| methods.collect());
        }
        let list = printed.split_once("paths: {").unwrap().1;
        let list = &list[..list.find("\"}").unwrap()];
        let mut routes = Vec::new();
        for entry in list.split("RouteId(").skip(1) {
            let path = entry.split('"').nth(1).unwrap();
            for method in &served[&id_of(entry)] {
                routes.push(((*method).to_owned(), path.to_owned()));
            }
        }
        routes
    }

    /// One request over a connection of its own. Whatever comes back must be what the OpenAPI document says.
    pub(crate) async fn send(
        &self,
        to: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method.parse::<Method>().unwrap();
        *request.uri_mut() = target.parse().unwrap();
        request
            .headers_mut()
            .insert("host", HeaderValue::from_str(&to.to_string()).unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let response = sender.send_request(request).await.unwrap();
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut whole = true;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: bytes.into(),
            whole,
        };
        judge(method, target, &answer);
        answer
    }

    /// A request that the administrator signs, to Osaka.
    pub(crate) async fn signed(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.signed_for(method, target, headers, body, body.to_owned())
            .await
    }

    /// The same, with a signature for one body and another one sent. `content-type` is signed if it is given.
    pub(crate) async fn signed_for(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        signed: &str,
        sent: String,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", self.osaka.to_string());
        let kind = headers.iter().find(|(name, _)| *name == "content-type");
        if let Some((name, value)) = kind {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        honshu_signature::sign_request(
            &mut parts,
            signed.as_bytes(),
            self.clock.now().as_seconds(),
            &self.key_id,
            &self.key,
        )
        .unwrap();
        let signed: Vec<(String, String)> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let mut all: Vec<(&str, &str)> = signed
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        all.extend_from_slice(headers);
        self.send(self.osaka, method, target, &all, sent).await
    }

    /// A new key in the root compartment, with its two secrets.
    pub(crate) async fn key(&self, expires: Option<Timestamp>) -> (String, [String; 2]) {
        let details = |name: &str| match expires {
            Some(expires) => json!({"keyName": name, "timeExpiry": expires.to_rfc3339()}),
            None => json!({"keyName": name}),
        };
        let body = json!({
            "displayName": "app",
            "compartmentId": self.root.as_str(),
            "keyDetails": [details("one"), details("two")],
        });
        let answer = self
            .signed("POST", "/20231130/apikeys", &[], &body.to_string())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let key = answer.json();
        let secret = |place: usize| key["keys"][place]["key"].as_str().unwrap().to_owned();
        (
            key["id"].as_str().unwrap().to_owned(),
            [secret(0), secret(1)],
        )
    }

    /// Lets every key chat.
    pub(crate) async fn let_keys_chat(&self) {
        self.let_keys("generative-ai-chat").await;
    }

    pub(crate) async fn let_keys(&self, resource: &str) {
        self.let_keys_do("use", resource).await;
    }

    /// Lets every key do something. Gives the policy's id.
    pub(crate) async fn let_keys_do(&self, verb: &str, resource: &str) -> String {
        let statement = format!(
            "allow any-user to {verb} {resource} in tenancy where request.principal.type = 'generativeaiapikey'"
        );
        let body = json!({
            "compartmentId": self.root.as_str(),
            "name": resource,
            "description": "d",
            "statements": [statement],
        });
        let answer = self
            .signed("POST", "/20160918/policies", &[], &body.to_string())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Takes a policy away.
    pub(crate) async fn delete_policy(&self, id: &str) {
        let target = format!("/20160918/policies/{id}");
        let answer = self.signed("DELETE", &target, &[], "").await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// A secret that may chat.
    pub(crate) async fn chatting(&self) -> String {
        self.let_keys_chat().await;
        let (_, [secret, _]) = self.key(None).await;
        secret
    }

    pub(crate) async fn post(&self, secret: &str, target: &str, body: impl Into<Bytes>) -> Answer {
        let bearer = format!("Bearer {secret}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(self.osaka, "POST", target, &headers, body).await
    }
}

/// Key id and key of the profile that `init` wrote.
fn administrator(home: &Path) -> (String, PrivateKey) {
    let text = std::fs::read_to_string(AdminProfile::of(home).config).unwrap();
    let config: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let key = PrivateKey::from_pem(&std::fs::read_to_string(config["key_file"]).unwrap()).unwrap();
    let key_id = format!(
        "{}/{}/{}",
        config["tenancy"], config["user"], config["fingerprint"]
    );
    (key_id, key)
}

/// A Chat body with one user message.
pub(crate) fn chat(text: &str) -> String {
    json!({"model": MODEL, "messages": [{"role": "user", "content": text}]}).to_string()
}

/// A streamed Chat body.
pub(crate) fn chat_stream(text: &str) -> String {
    json!({"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": true})
        .to_string()
}
