//! Signed URLs: a signature grants access to its path, for its client, until its expiry. An altered signature grants nothing,
//! and neither does a query that was not signed.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::{Corpus, fuzz_target};
use millpond_format::signature::{Denied, Grant, SigningKey, check, covers};

fuzz_target!(|input: Input| -> Corpus { run(&input).map_or(Corpus::Reject, |()| Corpus::Keep) });

#[derive(Debug, Arbitrary)]
struct Input {
    secret: [u8; 16],
    other_secret: [u8; 16],
    path: String,
    expires: u64,
    now: u64,
    prefix: Option<Prefix>,
    client: String,
    change: Change,
    query: String,
    network: String,
}

/// Who may use it; the client is 192.0.2.7.
#[derive(Debug, Arbitrary, Clone, Copy)]
enum Prefix {
    Own,
    Network,
    Mapped,
    Other,
    Family,
}

impl Prefix {
    fn text(self) -> &'static str {
        match self {
            Prefix::Own => "192.0.2.7",
            Prefix::Network => "192.0.2.0/24",
            Prefix::Mapped => "0.0.0.0/0",
            Prefix::Other => "192.0.3.0/24",
            Prefix::Family => "2001:db8::/32",
        }
    }

    fn is_clients(self) -> bool {
        matches!(self, Prefix::Own | Prefix::Network | Prefix::Mapped)
    }
}

/// The one thing that is altered.
#[derive(Debug, Arbitrary)]
enum Change {
    Path(String),
    Expiry(u64),
    /// The same number, with a sign or zeros before it.
    ExpiryWritten {
        plus: bool,
        zeros: u8,
    },
    KeyId,
    Secret,
    Prefix(Option<Prefix>),
    Client,
    /// A bit of a byte of the signature itself.
    Bit {
        place: usize,
        bit: u8,
    },
    Shorter,
    Longer(u8),
    /// A parameter before all others: the first of a name counts.
    Before {
        name: Name,
        value: String,
    },
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Name {
    Exp,
    Key,
    Ip,
    Sig,
}

fn run(input: &Input) -> Option<()> {
    let key = |id: &str, secret: &[u8; 16]| {
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        SigningKey::parse(&format!("{id}:{secret}")).expect("the key is one")
    };
    let keys = [key("k1", &input.secret), key("k2", &input.other_secret)];
    // A target has no line ends, and a path no query.
    if input.path.contains(['\n', '?']) {
        return None;
    }
    let ask = |path: &str, query: &str, client: &str| {
        check(path, Some(query), input.now, Some(client), &keys)
    };

    // Nothing that was not signed is granted, and nothing panics.
    assert!(ask(&input.path, &input.query, &input.client).is_err());
    let _ = covers(&input.network, &input.client);
    let _ = SigningKey::parse(&input.query);

    let grant = Grant {
        path: &input.path,
        expires: input.expires,
        client_prefix: input.prefix.map(Prefix::text),
    };
    let query = keys[0].sign(&grant);
    let is_valid = input.now <= input.expires && input.prefix.is_none_or(Prefix::is_clients);
    let expected = if is_valid {
        Ok(())
    } else {
        Err(Denied::Invalid)
    };
    assert_eq!(ask(&input.path, &query, "192.0.2.7"), expected, "{query}");
    assert_eq!(ask(&input.path, &query, "::ffff:192.0.2.7"), expected);

    let signature_at = query.rfind("sig=")? + 4;
    let (head, signature) = query.split_at(signature_at);
    // The parameters of another grant with the signature of this one.
    let with_signature_of_this = |other: &Grant<'_>| -> Option<String> {
        if *other == grant {
            return None;
        }
        let made = keys[0].sign(other);
        let (head, _) = made.split_at(made.rfind("sig=")? + 4);
        Some(format!("{head}{signature}"))
    };
    let mut path = input.path.clone();
    let mut client = "192.0.2.7";
    let changed = match &input.change {
        Change::Path(other) if *other != path => {
            path.clone_from(other);
            query.clone()
        }
        Change::Expiry(expires) => with_signature_of_this(&Grant {
            expires: *expires,
            ..grant
        })?,
        Change::ExpiryWritten { plus, zeros } => {
            let before = if *plus { "+" } else { "" }.to_owned() + &"0".repeat((*zeros).into());
            if before.is_empty() {
                return None;
            }
            query.replacen("exp=", &format!("exp={before}"), 1)
        }
        Change::Prefix(prefix) => with_signature_of_this(&Grant {
            client_prefix: prefix.map(Prefix::text),
            ..grant
        })?,
        Change::KeyId => query.replace("key=k1", "key=k2"),
        Change::Secret if input.secret != input.other_secret => {
            key("k1", &input.other_secret).sign(&grant)
        }
        Change::Client if input.prefix.is_some() => {
            client = "198.51.100.7";
            if matches!(input.prefix, Some(Prefix::Mapped)) {
                return None;
            }
            query.clone()
        }
        Change::Bit { place, bit } => {
            let mut bytes = signature.as_bytes().to_vec();
            let place = place % bytes.len();
            bytes[place] ^= 1 << (bit % 7);
            format!("{head}{}", String::from_utf8(bytes).ok()?)
        }
        Change::Shorter => query[..query.len() - 1].to_owned(),
        Change::Longer(byte) if *byte != b'&' => format!("{query}{}", char::from(*byte)),
        Change::Before { name, value } if !value.contains('&') => {
            let (name, own) = match name {
                Name::Exp => ("exp", input.expires.to_string()),
                Name::Key => ("key", "k1".to_owned()),
                Name::Ip => ("ip", grant.client_prefix.unwrap_or_default().to_owned()),
                Name::Sig => ("sig", signature.to_owned()),
            };
            if *value == own {
                return None;
            }
            format!("{name}={value}&{query}")
        }
        _ => return None,
    };
    if input.secret == input.other_secret && matches!(input.change, Change::KeyId) {
        // The id is signed too, so even that is none.
        assert!(ask(&path, &changed, client).is_err());
    }
    assert_eq!(
        ask(&path, &changed, client),
        Err(Denied::Invalid),
        "{:?} of {query}: {changed}",
        input.change
    );
    Some(())
}
