//! A login with a credentials file: a user's JWT, signed by an account, and the user's seed.

use std::fs;

use crate::support::{PATIENCE, event, listen, start};
use data_encoding::BASE64URL_NOPAD;
use eventbroker::SubscribeOptions;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError};
use nkeys::KeyPair;

/// A JWT for `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, rights: &str) -> String {
    let (issued_by, of) = (issuer.public_key(), subject.public_key());
    let claims =
        format!(r#"{{"jti":"{of}","iat":1700000000,"iss":"{issued_by}","name":"test","sub":"{of}","nats":{rights}}}"#);
    let head = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let [head, claims] = [head, &claims].map(|it| BASE64URL_NOPAD.encode(it.as_bytes()));
    let signature = issuer.sign(format!("{head}.{claims}").as_bytes()).expect("it signs");
    format!("{head}.{claims}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// The claims of an account. The system account must not have streams.
fn account(streams: &str) -> String {
    let bounds = r#""subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1"#;
    format!(
        r#"{{"type":"account","version":2,"default_permissions":{{"pub":{{}},"sub":{{}}}},"limits":{{{bounds}{streams}}}}}"#
    )
}

const STREAMS: &str = r#","mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1"#;
const USER: &str = r#"{"type":"user","version":2,"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1}"#;

#[test]
fn a_credentials_file_logs_in() {
    let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
    let [system, shop] = [(); 2].map(|()| KeyPair::new_account());
    let of_operator = jwt(&operator, &operator, r#"{"type":"operator","version":2}"#);
    let accounts = [(&system, ""), (&shop, STREAMS)]
        .map(|(it, streams)| format!("{}: {}", it.public_key(), jwt(&operator, it, &account(streams))));
    let server = Server::with(&format!(
        "operator: {of_operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n{}\n}}",
        system.public_key(),
        accounts.join("\n")
    ));
    let seed = user.seed().expect("a seed");
    let credentials = |name: &str, issuer: &KeyPair| {
        let path = server.folder().join(name);
        let jwt = jwt(issuer, &user, USER);
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        fs::write(&path, text).expect("a file");
        path
    };
    let nats = Nats::new(server.url());
    let strange = nats.clone().credentials_file(credentials("strange.creds", &KeyPair::new_account()));
    for nats in [nats.clone(), strange] {
        let error = nats.open().expect_err("it is refused");
        let text = format!("{error} {error:?} {nats:?}");
        assert!(matches!(error, OpenError::Server(_)) && text.contains("refuses the login"), "{text}");
        assert!(!text.contains(&seed) && !text.contains("eyJ"), "{text}");
    }
    let broker = start(&nats.credentials_file(credentials("user.creds", &shop)));
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    assert!(broker.stop(PATIENCE).is_clean());
}
