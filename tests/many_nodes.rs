//! Three nodes over one origin, behind the balancers of `deploy/many-nodes`.
//!
//! They need nginx and HAProxy, so they are ignored unless asked for.

use crate::host::noise;
use crate::origin::fault_origin::FaultOrigin;
use crate::origin::object::Object;
use crate::proxies::{configuration, started};
use crate::server::Server;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Number of objects. Each node has some of them.
const OBJECTS: usize = 60;

/// Longest time until a balancer uses a node again.
const RETURN: Duration = Duration::from_secs(60);

/// Three nodes with a cache each, and a balancer before them.
struct Nodes {
    origin: FaultOrigin,
    nodes: Vec<Option<Server>>,
    addresses: Vec<String>,
    /// Sockets that keep the ports of nodes that are away from other processes.
    _held: Vec<Socket>,
    balancer: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Nodes {
    /// Starts the nodes, and the balancer that `command` returns for its port and the addresses of the nodes.
    fn start(command: impl Fn(&Path, u16, &[String]) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let origin = FaultOrigin::start();
        for number in 0..OBJECTS {
            let object = Object::new(content(number)).field("cache-control", "max-age=3600");
            origin.put(&format!("/{number}.bin"), object);
        }
        let start = |number| node(&origin, folder.path(), number, "127.0.0.1:0");
        let nodes: Vec<Server> = (0..3).map(start).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
        let held = addresses.iter().map(|address| held_port(address)).collect();
        let (balancer, port) = started(|port| command(folder.path(), port, &addresses));
        Nodes {
            nodes: nodes.into_iter().map(Some).collect(),
            origin,
            addresses,
            _held: held,
            balancer,
            port,
            folder,
        }
    }

    /// Requests each object through the balancer. Returns the node that has served each.
    fn request_all(&self) -> Vec<Option<usize>> {
        (0..OBJECTS).map(|number| self.request(number)).collect()
    }

    /// Requests an object, with a query that must not select another node.
    fn request(&self, number: usize) -> Option<usize> {
        let query = rand::random::<u32>();
        let target = format!("/media/{number}.bin?v={query}");
        let address = format!("127.0.0.1:{}", self.port);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let address = address.parse().unwrap();
        let response = runtime.block_on(crate::client::request(address, "GET", &target, &[]));
        assert_eq!((response.status, response.whole), (200, true), "{target}");
        assert!(response.body == content(number), "the content differs");
        // The line comes after the response.
        let served = |node: &Option<Server>| {
            let node = node.as_ref();
            node.is_some_and(|node| node.logged().contains(&target))
        };
        loop {
            let node = self.nodes.iter().position(served);
            if node.is_some() {
                return node;
            }
            std::thread::yield_now();
        }
    }

    /// GETs of an object at the origin.
    fn gets(&self, number: usize) -> usize {
        let requests = self.origin.requests_for(&format!("/{number}.bin"));
        requests
            .iter()
            .filter(|request| request.method == "GET")
            .count()
    }

    fn assert_each_object_is_of_one_node(mut self) {
        let before = self.request_all();
        let shares = [0, 1, 2].map(|node| before.iter().filter(|of| **of == Some(node)).count());
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
        assert_eq!(self.request_all(), before);
        assert!((0..OBJECTS).all(|number| self.gets(number) == 1));

        // One leaves: its objects move, and no others.
        let left = self.nodes[0].take().unwrap();
        left.signal(Signal::KILL);
        left.wait();
        let without = self.request_all();
        for (number, (of, now)) in before.iter().zip(&without).enumerate() {
            match of {
                Some(0) => assert!(*now != Some(0)),
                _ => assert_eq!((of, self.gets(number)), (now, 1)),
            }
        }

        // It comes back with its cache: its objects return, and the origin sends none of them again.
        let gets: Vec<usize> = (0..OBJECTS).map(|number| self.gets(number)).collect();
        let address = self.addresses[0].clone();
        self.nodes[0] = Some(node(&self.origin, self.folder.path(), 0, &address));
        let number = before.iter().position(|of| *of == Some(0)).unwrap();
        let end = Instant::now() + RETURN;
        while self.request(number) != Some(0) {
            assert!(Instant::now() < end, "the node is not used again");
        }
        assert_eq!(self.request_all(), before);
        let after: Vec<usize> = (0..OBJECTS).map(|number| self.gets(number)).collect();
        assert_eq!(after, gets);
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.balancer.kill();
        let _ = self.balancer.wait();
    }
}

fn content(number: usize) -> Vec<u8> {
    let mut content = noise(10_000);
    content.extend_from_slice(number.to_string().as_bytes());
    content
}

/// Starts a node with a cache of its own.
fn node(origin: &FaultOrigin, folder: &Path, number: usize, listen: &str) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.arg("serve").arg(origin.url(""));
    command
        .arg("--cache-dir")
        .arg(folder.join(number.to_string()));
    let options = ["--listen", listen, "--reuse-port", "--admin", "off"];
    Server::started_by(&mut command, &options)
}

/// Returns a socket that is bound to an address, and never listens.
fn held_port(address: &str) -> Socket {
    let address: std::net::SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// Returns a configuration of `deploy/many-nodes` with the addresses of the nodes.
fn with_nodes(name: &str, addresses: &[String], listen: (&str, &str)) -> String {
    let names = ["NODE1:8080", "NODE2:8080", "NODE3:8080"];
    let nodes = names.into_iter().zip(addresses.iter().map(String::as_str));
    let replaced: Vec<(&str, &str)> = nodes.chain([listen]).collect();
    configuration(&format!("many-nodes/{name}"), &replaced)
}

#[test]
#[ignore = "needs nginx"]
fn nginx_sends_each_object_to_one_node_and_only_those_of_a_node_that_left_move() {
    let nodes = Nodes::start(|folder, port, addresses| {
        let listen = format!("listen 127.0.0.1:{port};");
        let site = with_nodes("nginx.conf", addresses, ("listen 80;", &listen));
        let folder = folder.display();
        let whole = format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;\n\
             events {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
             fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
             {site}\n}}\n"
        );
        let file = format!("{folder}/nginx.conf");
        fs::write(&file, whole).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-c", &file]);
        command
    });
    nodes.assert_each_object_is_of_one_node();
}

#[test]
#[ignore = "needs HAProxy"]
fn haproxy_sends_each_object_to_one_node_and_only_those_of_a_node_that_left_move() {
    let nodes = Nodes::start(|folder, port, addresses| {
        let bind = format!("bind 127.0.0.1:{port}");
        let site = with_nodes("haproxy.cfg", addresses, ("bind :80", &bind));
        let file = folder.join("haproxy.cfg");
        fs::write(&file, site).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        command
    });
    nodes.assert_each_object_is_of_one_node();
}
