use super::*;
use crate::pod::{KvPorts, PortsError};

const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

fn at(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(IP, port))
}

fn pod(kv_ports: Option<KvPorts>) -> Pod {
    Pod {
        uid: "u".into(),
        name: "p".into(),
        addr: SocketAddr::new(IP, 8000),
        role: crate::pod::Role::Both,
        topology: None,
        kv_ports,
        rank: None,
    }
}

#[test]
fn vllms_own_answer_is_read() {
    // As vLLM 0.32 says it.
    let body = br#"{"0":{"enable_kv_cache_events":true,"publisher":"zmq",
        "endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5558","buffer_steps":10000,
        "hwm":100000,"max_queue_size":100000,"topic":"kv@pod1@tiny"}}"#;
    let expected = Target { publish: at(5557), replay: at(5558) };
    assert_eq!(Target::read_all(body, IP).expect("it can be read"), [expected]);
}

#[test]
fn ranks_are_in_the_order_of_their_numbers() {
    let rank = |port: u16| {
        format!(
            r#"{{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:{port}"}}"#
        )
    };
    let body = format!(r#"{{"10":{},"2":{},"0":{}}}"#, rank(30), rank(20), rank(10));
    let ports: Vec<_> = Target::read_all(body.as_bytes(), IP)
        .expect("it can be read")
        .iter()
        .map(|target| target.publish.map(|it| it.port()))
        .collect();
    assert_eq!(ports, [Some(10), Some(20), Some(30)]);
}

#[test]
fn a_publisher_that_dials_is_not_dialled() {
    for (endpoint, dialled) in [
        ("tcp://*:5557", true),
        ("tcp://[::]:5557", true),
        ("tcp://10.0.0.7:5557", true),
        ("tcp://10.0.0.9:5557", false),
        ("tcp://gateway.svc:5557", false),
        ("ipc:///x", false),
        ("tcp://*:0", false),
    ] {
        let body = format!(
            r#"{{"0":{{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"{endpoint}"}}}}"#
        );
        let targets = Target::read_all(body.as_bytes(), IP).expect("it can be read");
        assert_eq!(targets[0].publish.is_some(), dialled, "{endpoint}");
    }
}

#[test]
fn a_pod_without_events_has_no_source() {
    for body in [
        r#"{}"#,
        r#"{"0":{"enable_kv_cache_events":false,"publisher":"zmq","endpoint":"tcp://*:1"}}"#,
        r#"{"0":{"enable_kv_cache_events":true,"publisher":"null"}}"#,
        r#"{"0":{"enable_kv_cache_events":true,"publisher":null}}"#,
    ] {
        assert_eq!(Target::read_all(body.as_bytes(), IP).expect("it can be read"), [], "{body}");
    }
    assert!(Target::read_all(b"<html>", IP).is_err());
}

#[test]
fn an_annotation_goes_before_the_configuration() {
    let settings = KvEventsSettings { port: Some(1), ..KvEventsSettings::default() };
    let annotated = KvPorts { publish: 2, replay: Some(12), ranks: 2 };
    let expected =
        [Target { publish: at(2), replay: at(12) }, Target { publish: at(3), replay: at(13) }];
    assert_eq!(configured(&pod(Some(annotated)), &settings), expected);
    let expected = [Target { publish: at(1), replay: None }];
    assert_eq!(configured(&pod(None), &settings), expected);
    assert_eq!(configured(&pod(None), &KvEventsSettings::default()), []);
}

#[test]
fn ports_are_read_as_they_are_written() {
    for (text, expected) in [
        ("5557", Ok((5557, None, 1))),
        ("5557,5558", Ok((5557, Some(5558), 1))),
        (" 5557, 5657, 2 ", Ok((5557, Some(5657), 2))),
        ("5557,0,2", Ok((5557, None, 2))),
        ("", Err(PortsError)),
        ("0", Err(PortsError)),
        ("70000", Err(PortsError)),
        ("5557,x", Err(PortsError)),
        ("5557,5558,0", Err(PortsError)),
        ("1,2,3,4", Err(PortsError)),
    ] {
        let read = text.parse::<KvPorts>();
        assert_eq!(read.map(|it| (it.publish, it.replay, it.ranks)), expected, "{text}");
        if let Ok(ports) = text.parse::<KvPorts>() {
            assert_eq!(ports.to_string().parse(), Ok(ports));
        }
    }
}
