//! A client that sends a request line exactly as it is given: HTTP libraries tidy paths before they send them.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection that is kept open.
pub struct RawClient {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `error.code` of a problem; empty for any other body.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl RawClient {
    /// `base` as in `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Self {
        Self { address: base.trim_start_matches("http://").to_owned(), connection: None }
    }

    /// Sends a request with these headers and body, on a new connection if the old one has ended.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> RawAnswer {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        if !body.is_empty() {
            write!(text, "content-type: application/json\r\ncontent-length: {}\r\n", body.len()).unwrap();
        }
        text.push_str("\r\n");
        text.push_str(body);
        for _ in 0..2 {
            if self.connection.is_none() {
                let connection = TcpStream::connect(&self.address).unwrap();
                connection.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
                connection.set_nodelay(true).unwrap();
                self.connection = Some(BufReader::new(connection));
            }
            let connection = self.connection.as_mut().unwrap();
            if connection.get_mut().write_all(text.as_bytes()).is_ok()
                && let Some((answer, stays)) = read_answer(connection, method)
            {
                if !stays {
                    self.connection = None;
                }
                return answer;
            }
            self.connection = None;
        }
        panic!("no answer to {method} {target}");
    }
}

fn read_line(connection: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    (connection.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
}

fn read_answer(connection: &mut BufReader<TcpStream>, method: &str) -> Option<(RawAnswer, bool)> {
    let status: u16 = read_line(connection)?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if method != "HEAD" && status != 304 && status != 204 {
        if header("transfer-encoding") == Some("chunked") {
            loop {
                let length = usize::from_str_radix(&read_line(connection)?, 16).ok()?;
                let mut chunk = vec![0; length + 2];
                connection.read_exact(&mut chunk).ok()?;
                chunk.truncate(length);
                body.extend(chunk);
                if length == 0 {
                    break;
                }
            }
        } else if let Some(length) = header("content-length") {
            body = vec![0; length.parse().ok()?];
            connection.read_exact(&mut body).ok()?;
        }
    }
    let stays = header("connection") != Some("close");
    Some((RawAnswer { status, headers, body }, stays))
}
