//! The server of the pages: one small page, whatever the name and the path it is asked under.
//!
//! `?referrer=POLICY` puts that referrer policy into the page, `?frame=VALUE` a frame with the same page in it whose
//! `sandbox` has this value.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The server.
pub(crate) struct Pages {
    port: u16,
}

impl Pages {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { port }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// Answers one request and closes.
async fn serve(mut stream: TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        // A browser also opens connections that it never uses.
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    let request = String::from_utf8_lossy(&request);
    let html = page(request.split(' ').nth(1)?);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        html.len()
    );
    stream.write_all((head + &html).as_bytes()).await.ok()
}

fn page(target: &str) -> String {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let wishes: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let referrer = wishes.get("referrer").map(|policy| format!("<meta name=referrer content='{policy}'>"));
    let frame = wishes.get("frame").map(|sandbox| format!("<iframe sandbox='{sandbox}' src='/'></iframe>"));
    format!(
        "<!doctype html><title>A page under test</title>{}{}",
        referrer.unwrap_or_default(),
        frame.unwrap_or_default()
    )
}
