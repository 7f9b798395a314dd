//! An HTTP server that does as a test says: one request for each connection, and any bytes for an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::archive::{TestImage, digest};

/// What came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `name=` of the query or of a form.
    pub fn field(&self, name: &str) -> Option<String> {
        let query = if self.method == "POST" { &self.body } else { self.path.split_once('?')?.1 };
        let url = reqwest::Url::parse(&format!("http://x/?{query}")).unwrap();
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// What goes back.
pub enum Reply {
    /// And then the end.
    Bytes(Vec<u8>),
    /// And then this again and again, for as long as anyone takes it.
    Endless(Vec<u8>, Vec<u8>),
}

impl Reply {
    pub fn new(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        Self::Bytes([head.as_bytes(), b"\r\n", body].concat())
    }

    pub fn ok(body: &[u8]) -> Self {
        Self::new("200 OK", &[], body)
    }
}

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    pub fn start_at(host: &str, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, answer) = (Arc::clone(&server.seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen, answer) = (stream.unwrap(), Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    if let Some(request) = read(&stream) {
                        seen.lock().unwrap().push(request.clone());
                        write(stream, answer(&request));
                    }
                });
            }
        });
        server
    }

    /// A registry with one image of any name, for those requests that `instead` has no answer to.
    pub fn registry(image: &TestImage, instead: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let blobs: Vec<Vec<u8>> = image.layers.iter().chain([&image.config, &image.manifest]).cloned().collect();
        Self::start(move |request| {
            if let Some(reply) = instead(request) {
                return reply;
            }
            let path = request.path.split('?').next().unwrap();
            if path == "/v2/" {
                return Reply::ok(b"{}");
            }
            if path.ends_with("/manifests/latest") {
                return Reply::ok(blobs.last().unwrap());
            }
            let Some(blob) = blobs.iter().find(|blob| path.ends_with(&digest(blob))) else {
                return Reply::new("404 Not Found", &[], b"");
            };
            let Some(range) = request.header("range") else { return Reply::ok(blob) };
            let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
            let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
            Reply::new("206 Partial Content", &[("Content-Range", &range)], &blob[from..])
        })
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut request =
        Request { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}

/// Whoever asked may be gone.
fn write(mut stream: TcpStream, reply: Reply) {
    match reply {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Reply::Endless(head, piece) => {
            let _ = stream.write_all(&head);
            while stream.write_all(&piece).is_ok() {}
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
}
