use std::time::Duration;

use super::*;

#[derive(Debug, PartialEq)]
struct Config {
    node: String,
    listen: std::net::SocketAddr,
    idle: Duration,
    ca: Option<PathBuf>,
    format: u8,
    accounts: Vec<(String, Vec<String>)>,
}

fn read(r: &mut Reader) -> Config {
    let node = r.key("node", "Name of the node.").example("edge-eu-1").read(kind::name());
    let (listen, idle, ca) = r.table("link", "The link.", |r| {
        (
            r.key("listen", "Where.").default("127.0.0.1:7443").read(kind::listen_address()),
            r.key("idle_ms", "How long | at most.").default(2000).read(kind::millis(200..=60_000)),
            r.key("ca_file", "The CA.").example("pki/ca.pem").read_optional(kind::readable_file()),
        )
    });
    let format = r.table("log", "The log.", |r| {
        let kind = kind::one_of(&[("text", 0), ("json", 1)]);
        r.key("format", "How lines look.").default("text").read(kind)
    });
    let accounts = r.tables("account", "First accounts.", 2, |r| {
        let name = r.key("name", "Name.").example("acme").read(kind::text());
        let empty: Vec<String> = Vec::new();
        let hosts = r.key("hosts", "Hosts.").default(empty).read(kind::list(kind::name(), 3));
        if hosts.contains(&name) {
            r.refuse("hosts", &name, "must not contain the account's own name");
        }
        (name, hosts)
    });
    Config { node, listen, idle, ca, format, accounts }
}

fn check(text: &str) -> Result<Config, Vec<String>> {
    parse("c.toml", text, Path::new("/nonexistent"), read)
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn good_files_are_read() {
    let config = check("node = \"n-1\"\n[[account]]\nname = \"a\"\nhosts = [\"b\"]\n").unwrap();
    assert_eq!(config.idle, Duration::from_secs(2));
    assert_eq!(config.accounts, [("a".to_owned(), vec!["b".to_owned()])]);
    assert_eq!(config.listen.port(), 7443);
}

#[test]
fn every_error_is_named_with_line_key_value_and_what_is_allowed() {
    let text = r#"node = "Not A Name"
[link]
listen = "localhost"
idle_s = 2
ca_file = "absent.pem"
[log]
format = "xml"
[[account]]
hosts = ["x", 7]
[[account]]
name = "self"
hosts = ["self"]
[lnk]
"#;
    assert_eq!(
        check(text).unwrap_err(),
        [
            r#"c.toml:1: `node` = "Not A Name": allowed is a name of 1 to 63 letters a-z, digits and hyphens inside"#,
            r#"c.toml:3: `link.listen` = "localhost": allowed is ip:port, for example "0.0.0.0:5060" or "[::]:5060" (port 0: any free one)"#,
            "c.toml:4: `link.idle_s` is not a known key; did you mean `link.idle_ms`?",
            r#"c.toml:5: `link.ca_file` = "absent.pem": allowed is the path of a file that can be read"#,
            r#"c.toml:7: `log.format` = "xml": allowed is one of "text", "json""#,
            "c.toml:8: `account[1].name` is missing: allowed is a text of 1 to 1000 bytes without control characters",
            r#"c.toml:9: `account[1].hosts` = ["x", 7]: allowed is a list of at most 3, each a name of 1 to 63 letters a-z, digits and hyphens inside"#,
            "c.toml:12: `account[2].hosts` = self: must not contain the account's own name",
            "c.toml:13: `lnk` is not a known key; did you mean `link`?",
        ]
    );
}

#[test]
fn wrong_shapes_are_errors_not_defaults() {
    for (text, expect) in [
        ("node = \"n\"\nlink = 3", "`link` = 3: allowed is a table"),
        (
            "node = \"n\"\nlink.idle_ms = 199",
            "`link.idle_ms` = 199: allowed is milliseconds from 200",
        ),
        ("node = \"n\"\nlink.idle_ms = \"2000\"", "`link.idle_ms` = \"2000\""),
        ("node = \"n\"\nlink.idle_ms = -5", "`link.idle_ms` = -5"),
        ("node = \"n\"\nlink.idle_ms = 2.5", "`link.idle_ms` = 2.5"),
        ("node = \"n\"\naccount = [1]", "a list of at most 2 tables"),
        ("node = \"n\"\n[account]\nname=\"x\"", "a list of at most 2 tables"),
        ("node = \"n\"\n[[account]]\n[[account]]\n[[account]]", "a list of at most 2 tables"),
        ("node = 99999999999999999999", "`node` = 99999999999999999999"),
        ("", "`node` is missing"),
    ] {
        let errors = check(text).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(expect)), "{text:?}: {errors:?}");
    }
}

#[test]
fn syntax_errors_do_not_hide_the_others() {
    let errors = check("node = \"n\"\nlink.idle_ms = = 5\nlog.format = \"xml\"\n").unwrap_err();
    assert!(errors.iter().any(|error| error.starts_with("c.toml:2: not TOML")), "{errors:?}");
    assert!(errors.iter().any(|error| error.starts_with("c.toml:3: `log.format`")), "{errors:?}");
}

#[test]
fn sample_is_a_file_that_is_accepted() {
    let text = sample(read);
    let config = check(&text).unwrap();
    assert_eq!(config.node, "edge-eu-1");
    assert!(
        text.contains("# default; milliseconds from 200 to 60000\n# idle_ms = 2000\n"),
        "{text}"
    );
    assert!(text.contains("# [[account]]\n"), "{text}");
    let page = reference(read);
    assert!(page.contains("| `link.idle_ms` | `2000` | milliseconds"), "{page}");
    assert!(page.contains("How long \\| at most."), "{page}");
}

#[test]
fn an_unreadable_file_is_one_problem() {
    let problems = load(Path::new("/nonexistent/c.toml"), read).unwrap_err();
    assert!(problems.to_string().contains("1 configuration error, nothing was started"));
    assert!(problems.to_string().contains("cannot be read"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z\\[\\]=\". \n0-9{},#']{0,120}") {
        let _ = check(&text);
    }
}

#[test]
fn repeats_are_told_with_their_own_line_and_nothing_follows_from_a_refused_key() {
    let problems = parse(
        "c.toml",
        "a = \"one\"\n[[node]]\nname = \"x\"\n[[node]]\nname = \"y\"\n[[node]]\nname = \"x\"\n",
        Path::new("/"),
        |r: &mut Reader| {
            let a = r.key("a", "A.").default(1).read(kind::integer(1..=9));
            let nodes = r.tables("node", "Nodes.", 9, |r| {
                r.key("name", "Name.").example("x").read(kind::name())
            });
            r.refuse_repeats("node", "name", nodes);
            if !r.is_refused("a") {
                r.refuse("a", a, "never");
            }
        },
    );
    let problems: Vec<String> = problems.unwrap_err().0.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            r#"c.toml:1: `a` = "one": allowed is a whole number from 1 to 9"#,
            "c.toml:7: `node[3].name` = x: allowed is each one once, node[1] has it already",
        ]
    );
}
