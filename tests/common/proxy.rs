//! A wire to the database that misbehaves on demand: it delays, falls silent, cuts, half-closes, refuses, or loses the answer
//! to a commit of the books' writer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What only the writer's own connection says.
const WRITER: &[u8] = b"plan_cache_mode";
/// How a transaction begins and is committed, each in a simple query.
const BEGIN: &[u8] = b"BEGIN";
const COMMIT: &[u8] = b"COMMIT\0";
/// What is a transaction of its own, where none has begun: it is prepared under a name, and then run by it.
const APPEND: &[u8] = b"INSERT INTO ledger_events";
const NAME: &[u8] = b"sqlx_s_";

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It arrives.
    Open,
    /// Each piece arrives after 1 to this many milliseconds.
    Slow(u64),
    /// It vanishes, as in a network that drops packets: both ends must notice by themselves.
    Silent,
    /// New connections are closed at once.
    Refusing,
}

/// What ends the connections that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cut,
    HalfClosed,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    /// The answer to which of the commits to come is lost, 0 for none, and what the wire does after it.
    losing: AtomicU32,
    afterwards: Mutex<Mode>,
    lost: AtomicU32,
    pieces: AtomicU64,
    ends: watch::Sender<(u64, End)>,
}

/// The wire. It ends with the runtime that it was made on.
#[derive(Debug, Clone)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A wire to the server of a database's address.
    pub async fn to(database: &str) -> Self {
        let url = url::Url::parse(database).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Open),
            losing: AtomicU32::new(0),
            afterwards: Mutex::new(Mode::Open),
            lost: AtomicU32::new(0),
            pieces: AtomicU64::new(0),
            ends: watch::Sender::new((0, End::Cut)),
        });
        let proxy = Self { port, shared: shared.clone() };
        tokio::runtime::Handle::current().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.mode.lock().unwrap() == Mode::Refusing {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                tokio::runtime::Handle::current().spawn(connect(client, upstream, shared.clone()));
            }
        });
        proxy
    }

    /// A database's address by way of this wire.
    pub fn address(&self, database: &str) -> String {
        let mut url = url::Url::parse(database).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.to_string()
    }

    /// What becomes of what is sent from now on.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.end(End::Cut);
    }

    /// The server seems to close all connections, and still listens.
    pub fn half_close(&self) {
        self.end(End::HalfClosed);
    }

    fn end(&self, end: End) {
        self.shared.ends.send_modify(|(count, last)| {
            *count += 1;
            *last = end;
        });
    }

    /// Of the commits of the books' writer, the `nth` from now on is carried out and its answer lost, with its connection; 0
    /// loses none. After it the wire does as `afterwards` says.
    pub fn lose_commit(&self, nth: u32, afterwards: Mode) {
        *self.shared.afterwards.lock().unwrap() = afterwards;
        self.shared.losing.store(nth, Ordering::SeqCst);
    }

    /// How many answers to commits were lost.
    pub fn lost_commits(&self) -> u32 {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

async fn connect(client: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let (loses, mut ends) = (AtomicBool::new(false), shared.ends.subscribe());
    ends.mark_unchanged();
    let (client_read, mut client_write) = client.into_split();
    let (server_read, mut server_write) = server.into_split();
    let end = {
        let asked = carry_questions(client_read, &mut server_write, &shared, &loses);
        let answered = carry_answers(server_read, &mut client_write, &shared, &loses);
        tokio::pin!(asked, answered);
        tokio::select! {
            () = &mut asked => End::Cut,
            () = &mut answered => End::Cut,
            changed = ends.changed() => changed.map_or(End::Cut, |()| ends.borrow().1),
        }
    };
    if end == End::HalfClosed {
        let _ = client_write.shutdown().await;
        // The other direction stays open until the client has had enough.
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

async fn carry_questions(mut from: OwnedReadHalf, to: &mut OwnedWriteHalf, shared: &Shared, loses: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    let (mut is_writer, mut has_begun, mut appends) = (false, false, Vec::new());
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let piece = &buffer[..read];
        is_writer |= contains(piece, WRITER);
        appends.extend(name_of_append(piece));
        has_begun |= contains(piece, BEGIN);
        let commits = contains(piece, COMMIT);
        has_begun &= !commits;
        if is_writer && (commits || !has_begun && appends.iter().any(|name| contains(piece, name))) {
            let left = shared.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            loses.store(left == Ok(1), Ordering::SeqCst);
        }
        if !pass(piece, to, shared).await {
            return;
        }
    }
}

/// How a statement is run that is prepared in this piece, if that is one by which the books' writer appends.
fn name_of_append(piece: &[u8]) -> Option<Vec<u8>> {
    let text = piece.windows(APPEND.len()).position(|window| window == APPEND)?;
    let name = piece[..text].windows(NAME.len()).rposition(|window| window == NAME)?;
    let end = name + piece[name..].iter().position(|byte| *byte == 0)?;
    // Before it stands the empty name of the portal.
    Some([&[0], &piece[name..=end]].concat())
}

async fn carry_answers(mut from: OwnedReadHalf, to: &mut OwnedWriteHalf, shared: &Shared, loses: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // The server has answered, so it is done.
        if loses.load(Ordering::SeqCst) {
            shared.lost.fetch_add(1, Ordering::SeqCst);
            *shared.mode.lock().unwrap() = *shared.afterwards.lock().unwrap();
            return;
        }
        if !pass(&buffer[..read], to, shared).await {
            return;
        }
    }
}

/// Whether the line still stands.
async fn pass(piece: &[u8], to: &mut OwnedWriteHalf, shared: &Shared) -> bool {
    let mode = *shared.mode.lock().unwrap();
    if let Mode::Slow(most) = mode {
        // Looks random and is the same in each run.
        let number = shared.pieces.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        tokio::time::sleep(Duration::from_millis(1 + number % most.max(1))).await;
    }
    mode == Mode::Silent || to.write_all(piece).await.is_ok()
}

fn contains(piece: &[u8], part: &[u8]) -> bool {
    piece.windows(part.len()).any(|window| window == part)
}
