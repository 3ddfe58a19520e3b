//! Clients that wait in their place to be told what to do.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::cage;

/// A `bench-seat`: started once, before the rounds, in the place that is measured.
#[derive(Debug)]
pub struct Seat {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// The program, next to the benches.
#[must_use]
pub fn seat_binary() -> PathBuf {
    let own = env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("bench-seat")
}

/// Accepts and closes what has come, every few milliseconds.
pub fn drain(listener: &TcpListener) -> ! {
    listener.set_nonblocking(true).unwrap();
    loop {
        listener.incoming().map_while(Result::ok).for_each(drop);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets this process and those it starts have as many descriptors as they may.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

impl Seat {
    /// Where the bench itself is.
    #[must_use]
    pub fn here() -> Self {
        Self::start(Command::new(seat_binary()).arg("client"))
    }

    /// In a cgroup.
    #[must_use]
    pub fn inside(procs: &Path) -> Self {
        let mut command = Command::new(seat_binary());
        Self::start(&mut cage::inside(procs, command.arg("client")))
    }

    /// By a command that runs it, such as `waylay run -- bench-seat client`.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut seat = Self { child, stdin, stdout };
        // Until it is there, so that its start is nobody's turn.
        assert_eq!(seat.read(), "ready");
        seat
    }

    /// The process that was started.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the seat has ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    /// Tells it something; the numbers it answers with.
    pub fn ask(&mut self, line: &str) -> Vec<f64> {
        writeln!(self.stdin.as_ref().unwrap(), "{line}").unwrap();
        let answer = self.read();
        let numbers = answer.split_whitespace().map(|number| number.parse());
        numbers.collect::<Result<_, _>>().unwrap_or_else(|_| panic!("{line:?}: {answer:?}"))
    }

    /// The median of so many connects, in nanoseconds, of connect(2) alone.
    pub fn dial(&mut self, server: SocketAddr, count: u32) -> f64 {
        self.ask(&format!("dial {server} {count}"))[0]
    }

    /// The same of connections that are used, each for a request and an answer, before the next.
    pub fn reach(&mut self, server: SocketAddr, count: u32) -> f64 {
        self.ask(&format!("reach {server} {count}"))[0]
    }

    /// The medians of so many calls of sendmsg(2), and of recvmsg(2), of 64 bytes by a pair of Unix sockets, in nanoseconds.
    pub fn message(&mut self, count: u32) -> (f64, f64) {
        let answer = self.ask(&format!("message {count}"));
        (answer[0], answer[1])
    }

    /// How many connects a second so many threads make together.
    pub fn storm(&mut self, server: SocketAddr, count: u32, threads: u32) -> f64 {
        self.ask(&format!("storm {server} {count} {threads}"))[0]
    }

    /// How long a connection takes with a request and an answer, in nanoseconds, and how many there are a second.
    pub fn greet(&mut self, server: SocketAddr, count: u32, threads: u32) -> (f64, f64) {
        let answer = self.ask(&format!("greet {server} {count} {threads}"));
        (answer[0], answer[1])
    }

    /// The median of so many exchanges of 64 bytes over one connection, in nanoseconds.
    pub fn ping(&mut self, server: SocketAddr, count: u32) -> f64 {
        self.ask(&format!("ping {server} {count}"))[0]
    }

    /// How long so many bytes take, `way` being `down` or `up`.
    pub fn bulk(&mut self, way: &str, server: SocketAddr, bytes: u64, streams: u32) -> Duration {
        Duration::from_secs_f64(self.ask(&format!("{way} {server} {bytes} {streams}"))[0] / 1e9)
    }

    /// Opens so many connections, exchanges 64 bytes over each and leaves them open until [`Seat::hang_up`].
    pub fn idle(&mut self, server: SocketAddr, count: u32) {
        self.ask(&format!("idle {server} {count}"));
    }

    /// How long so many datagrams of 64 bytes take there and back, `window` of them on their way at a time; and how
    /// many were lost.
    pub fn volley(&mut self, server: SocketAddr, count: u32, window: u32) -> (Duration, f64) {
        let answer = self.ask(&format!("volley {server} {count} {window}"));
        (Duration::from_secs_f64(answer[0] / 1e9), answer[1])
    }

    /// Opens flows of datagrams, from so many sockets to so many ports, until [`Seat::hang_up`].
    pub fn open(&mut self, server: SocketAddr, sockets: u32, ports: u16) {
        self.ask(&format!("open {server} {sockets} {ports}"));
    }

    /// Closes them.
    pub fn hang_up(&mut self) {
        self.ask("hang-up");
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // It ends with its standard input, and so does whatever it was started by.
        self.stdin = None;
        let _ended = self.child.wait();
    }
}
