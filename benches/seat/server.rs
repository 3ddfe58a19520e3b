//! The server behind every path: what it does is in a connection's first byte.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use socket2::{Domain, Socket, Type};

/// Bytes of the request of a greeting.
pub(crate) const REQUEST: usize = 80;
/// And of the answer.
pub(crate) const ANSWER: usize = 64;
/// Bytes that go there and back.
pub(crate) const BLOCK: usize = 64;

/// Says on its first line where it listens.
pub(crate) fn serve(address: SocketAddr) {
    let listener = listen(address);
    println!("{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        thread::spawn(move || {
            // Whoever goes away in the middle shows in its own figures.
            let _gone = answer(stream);
        });
    }
}

/// Listens, and takes what has come now and then: no client's connect(2) wakes anybody.
pub(crate) fn sink(address: SocketAddr) -> ! {
    let listener = listen(address);
    println!("{}", listener.local_addr().unwrap());
    waylay_benches::drain(&listener)
}

/// With room for all who come at once.
pub(crate) fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind[0] {
        b'g' => {
            stream.read_exact(&mut [0; REQUEST - 1])?;
            stream.write_all(&[b'.'; ANSWER])
        }
        b'p' => echo(&mut stream),
        b'd' => send(&mut stream),
        b'u' => receive(&mut stream),
        kind => panic!("{kind}"),
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut block = [0; BLOCK];
    loop {
        stream.read_exact(&mut block)?;
        stream.write_all(&block)?;
    }
}

fn length(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn send(stream: &mut TcpStream) -> io::Result<()> {
    let mut left = length(stream)?;
    let buffer = vec![b'.'; 256 << 10];
    while left > 0 {
        let size = left.min(buffer.len() as u64);
        stream.write_all(&buffer[..size as usize])?;
        left -= size;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream) -> io::Result<()> {
    let mut left = length(stream)?;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    stream.write_all(b".")
}
