//! Bodies with something to count in them, by the wish's name and number:
//! `json=N` (an array of N), `object=N` (one value of N bytes), `lines=N` (NDJSON), `events=N` (server-sent events, then the
//! end), `feed=N` (N events, and then nothing more), `ticks=N` (N events, one in 20 ms, then the end), `burst=N` (N events at once, and then nothing more), `frames=N`
//! (WebSocket, N messages, and then nothing more), `half=N` (N lines of NDJSON, then the connection breaks),
//! `stall=N` (says it has 3,000,000 bytes, sends N, and then nothing more), `price=N` (a header `X-Price: N`), `packed=N` (says it is compressed).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whether the wish is one of these; then whether the connection goes on.
pub(super) async fn answer(stream: &mut TcpStream, name: &str, value: &str) -> Option<Option<()>> {
    let count: usize = value.parse().ok()?;
    let json = || (0..count).map(|at| format!(r#"{{"at":{at},"of":[1,2]}}"#));
    Some(match name {
        "json" => {
            whole(stream, "application/json", "", format!("[{}]", json().collect::<Vec<_>>().join(", ")))
                .await
        }
        "object" => whole(stream, "application/octet-stream", "", "x".repeat(count)).await,
        "stall" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 3000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all("x".repeat(count).as_bytes()).await.ok()?;
            idle(stream).await
        }
        "price" => whole(stream, "text/plain", &format!("X-Price: {count}\r\n"), "priced".to_owned()).await,
        "packed" => whole(stream, "application/json", "Content-Encoding: gzip\r\n", "x".repeat(count)).await,
        "lines" | "half" => {
            begin(stream, "application/x-ndjson").await?;
            for line in json() {
                chunk(stream, &format!("{line}\n")).await?;
            }
            if name == "half" { None } else { stream.write_all(b"0\r\n\r\n").await.ok() }
        }
        "events" | "feed" => {
            begin(stream, "text/event-stream").await?;
            for at in 0..count {
                chunk(stream, &event(at)).await?;
            }
            if name == "feed" { idle(stream).await } else { stream.write_all(b"0\r\n\r\n").await.ok() }
        }
        "ticks" => {
            begin(stream, "text/event-stream").await?;
            for at in 0..count {
                chunk(stream, &event(at)).await?;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            stream.write_all(b"0\r\n\r\n").await.ok()
        }
        "burst" => {
            begin(stream, "text/event-stream").await?;
            chunk(stream, &(0..count).map(event).collect::<String>()).await?;
            idle(stream).await
        }
        "frames" => {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            for _ in 0..count {
                stream.write_all(b"\x81\x05hello").await.ok()?;
            }
            idle(stream).await
        }
        _ => return None,
    })
}

fn event(at: usize) -> String {
    format!("id: {at}\ndata: {{\"price\": {at}}}\n\n")
}

async fn whole(stream: &mut TcpStream, kind: &str, extra: &str, body: String) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()
}

async fn begin(stream: &mut TcpStream, kind: &str) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()
}

async fn chunk(stream: &mut TcpStream, text: &str) -> Option<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.ok()
}

/// Until the gate closes.
async fn idle(stream: &mut TcpStream) -> Option<()> {
    let mut piece = [0; 1024];
    while stream.read(&mut piece).await.ok()? > 0 {}
    None
}
