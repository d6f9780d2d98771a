//! Signs requests as a client would: a second implementation, from the words of `signing.md` alone.

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::harness::client::Ask;

/// The host of the vectors; no port, as public clients have none.
pub const HOST: &str = "cloud.iexapis.com";

/// A request to be signed, and with what.
#[derive(Clone)]
pub struct Signer {
    pub method: String,
    pub target: String,
    pub host: String,
    pub token: String,
    pub secret: String,
    pub date: String,
    /// The body whose hash is signed.
    pub signed: Vec<u8>,
    /// The body that is sent.
    pub body: Vec<u8>,
}

/// A time as `x-iex-date` writes it, so many seconds from now.
pub fn date(seconds: i64) -> String {
    let at = Timestamp::now() + SignedDuration::from_secs(seconds);
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn hex_hmac(key: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

impl Signer {
    /// A `GET` of now.
    pub fn get(target: &str, token: &str, secret: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            host: HOST.to_owned(),
            token: token.to_owned(),
            secret: secret.to_owned(),
            date: date(0),
            signed: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A `POST` of now, signed with its body's hash.
    pub fn post(target: &str, token: &str, secret: &str, body: &[u8]) -> Self {
        let get = Self::get(target, token, secret);
        Self { method: "POST".to_owned(), signed: body.to_vec(), body: body.to_vec(), ..get }
    }

    pub fn signature(&self) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let (day, date) = (&self.date[..8], &self.date);
        let canonical = format!(
            "{}\n{path}\n{query}\nhost:{}\nx-iex-date:{date}\n\nhost;x-iex-date\n{}",
            self.method,
            self.host,
            hex::encode(Sha256::digest(&self.signed))
        );
        let to_sign =
            format!("IEX-HMAC-SHA256\n{date}\n{day}/iex_request\n{}", hex::encode(Sha256::digest(canonical)));
        let key = hex_hmac(&hex_hmac(&self.secret, day), "iex_request");
        hex_hmac(&key, &to_sign)
    }

    pub fn authorization(&self) -> String {
        format!(
            "IEX-HMAC-SHA256 Credential={}/{}/iex_request, SignedHeaders=host;x-iex-date, Signature={}",
            self.token,
            &self.date[..8],
            self.signature()
        )
    }

    /// The request with its signature, body apart.
    pub fn bare(&self) -> Ask {
        Ask::new(&self.method, &self.target)
            .header("Host", &self.host)
            .header("x-iex-date", &self.date)
            .header("Authorization", &self.authorization())
    }

    pub fn ask(&self) -> Ask {
        self.bare().body(self.body.clone())
    }

    /// The head of a request whose body is sent by hand, with these headers more.
    pub fn head(&self, more: &str) -> Vec<u8> {
        let Self { method, target, host, date, .. } = self;
        let authorization = self.authorization();
        format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nx-iex-date: {date}\r\nAuthorization: {authorization}\r\n\
             X-Test: echo\r\n{more}\r\n"
        )
        .into_bytes()
    }
}

#[test]
fn the_signer_of_these_tests_makes_the_vectors() {
    let token = "pk_0123456789abcdef0123456789abcdef";
    let secret = "sk_fedcba9876543210fedcba9876543210";
    let body = br#"[{"symbol":"AAPL","v":1}]"#;
    let table = [
        (
            Signer::get(&format!("/v1/stock/aapl/quote?token={token}"), token, secret),
            "46f699f9b60e5c1499f9d774005ca424e887ed6d20905cd86a19d96c484fde3e",
        ),
        (
            Signer::get(
                &format!("/v1/stock/market/batch?token={token}&symbols=aapl,msft&types=quote"),
                token,
                secret,
            ),
            "fe16eb33da9b260a13ed7d2f4c037e29bfe292a28e40b3de2ebae2dd366e6cf1",
        ),
        (
            Signer::post(&format!("/v1/record/WS/DS?token={token}"), token, secret, body),
            "e0c26bc2431dbd3779aeaf597823a4568923e481e55a3d7e914d69672bbe944a",
        ),
    ];
    for (mut request, signature) in table {
        request.date = "20240115T123045Z".to_owned();
        assert_eq!(request.signature(), signature, "{}", request.target);
    }
}
