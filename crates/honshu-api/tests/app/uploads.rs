//! Uploads: what is taken, what is refused, and that it goes through in pieces.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, House};

const FORM: &str = "multipart/form-data; boundary=line";
const MIB: usize = 1024 * 1024;

fn field(head: &str, value: &str) -> String {
    format!("--line\r\ncontent-disposition: form-data; name=\"{head}\r\n\r\n{value}\r\n")
}

fn purpose() -> String {
    field("purpose\"", "user_data")
}

fn file(content: &str) -> String {
    field("file\"; filename=\"a.txt\"", content)
}

struct Uploader {
    house: House,
    bearer: String,
}

impl Uploader {
    async fn new() -> Self {
        let house = House::new().await;
        house.let_keys_do("manage", "generative-ai-file").await;
        let bearer = format!("Bearer {}", house.chatting().await);
        Self { house, bearer }
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Answer {
        let mut headers = vec![("authorization", self.bearer.as_str())];
        if method == "POST" {
            headers.push(("content-type", FORM));
        }
        let house = &self.house;
        house.send(house.osaka, method, path, &headers, body).await
    }

    async fn post(&self, fields: &[String]) -> Answer {
        let body = format!("{}--line--\r\n", fields.concat());
        let answer = self.send("POST", "/v1/files", body).await;
        answer.check("an upload");
        answer
    }

    async fn count(&self) -> usize {
        let list = self.send("GET", "/v1/files", String::new()).await.json();
        list["data"].as_array().unwrap().len()
    }
}

/// Bytes of which no two pieces are the same.
fn content(length: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    for number in 0.. {
        if text.len() >= length {
            break;
        }
        text.push_str(&format!("{number:07x}\n"));
    }
    text.truncate(length);
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_above_the_limit_of_json_come_back_as_they_were() {
    let caller = Uploader::new().await;
    for (length, purpose_first) in [
        (0, true),
        (1, false),
        (64 * 1024, true),
        (64 * 1024 + 1, false),
        (12 * MIB + 5, true),
    ] {
        let content = content(length);
        let mut fields = vec![
            purpose(),
            file(&content),
            field("unknown\"", &"x".repeat(300_000)),
        ];
        if !purpose_first {
            fields.reverse();
        }
        let answer = caller.post(&fields).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let made = answer.json();
        assert_eq!(made["bytes"], json!(length));
        let path = format!("/v1/files/{}/content", made["id"].as_str().unwrap());
        let answer = caller.send("GET", &path, String::new()).await;
        assert!(answer.whole);
        assert_eq!(answer.header("content-length"), Some(&*length.to_string()));
        assert!(answer.body == content.as_bytes(), "{length} bytes differ");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_upload_is_refused_by_name_and_leaves_no_file() {
    let caller = Uploader::new().await;
    let long = "x".repeat(2000);
    for (fields, param) in [
        (vec![purpose()], json!("file")),
        (vec![file("a")], json!("purpose")),
        (vec![file("a"), field("purpose\"", "fun")], json!("purpose")),
        (vec![file("a"), field("purpose\"", &long)], json!("purpose")),
        (vec![file("a"), purpose(), file("b")], json!("file")),
        (
            vec![file("a"), purpose(), field("expires_after[seconds]\"", "1")],
            json!("expires_after.seconds"),
        ),
    ] {
        let answer = caller.post(&fields).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["error"]["param"], param);
    }
    // Cut, without a boundary, and with what the parser would have to keep whole.
    let cut = [purpose(), file("a")].concat();
    let heads = format!("--line\r\nx: {}", "y".repeat(MIB));
    for body in [cut, String::new(), "x".repeat(MIB), heads] {
        let answer = caller.send("POST", "/v1/files", body).await;
        assert_eq!(answer.check("broken").status, 400, "{}", answer.text());
        assert_eq!(answer.json()["error"]["param"], Value::Null);
    }
    assert_eq!(caller.count().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_64_mib_are_refused_when_they_are_announced_and_for_strangers_earlier() {
    let caller = Uploader::new().await;
    for (bearer, bytes, status) in [
        (caller.bearer.as_str(), 64 * MIB + 1, "413"),
        ("Bearer nobody", 64 * MIB, "401"),
    ] {
        let osaka = caller.house.osaka;
        let mut stream = tokio::net::TcpStream::connect(osaka).await.unwrap();
        let head = format!(
            "POST /v1/files HTTP/1.1\r\nhost: {osaka}\r\nauthorization: {bearer}\r\n\
             content-type: {FORM}\r\ncontent-length: {bytes}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, format!("HTTP/1.1 {status}").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_upload_is_the_signed_one_to_its_last_byte() {
    let caller = Uploader::new().await;
    let compartment = caller.house.root.as_str();
    let headers = [("content-type", FORM), ("opc-compartment-id", compartment)];
    let signed = format!("{}{}--line--\r\nbehind", purpose(), file(&content(MIB)));
    for (sent, status) in [
        (signed.clone(), 200),
        (signed.replace("0000001", "1000000"), 401),
        (signed.replace("behind", "beyond"), 401),
    ] {
        let answer = caller
            .house
            .signed_for("POST", "/v1/files", &headers, &signed, sent)
            .await;
        assert_eq!(answer.check("signed").status, status, "{}", answer.text());
    }
    let list = caller
        .house
        .signed("GET", "/v1/files", &headers[1..], "")
        .await;
    assert_eq!(list.json()["data"].as_array().unwrap().len(), 1);
}
