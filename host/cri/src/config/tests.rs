use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/husk/config.toml"), |_| None)
}

#[test]
fn the_printed_file_says_what_is_the_case_without_it() {
    assert_eq!(parse(DEFAULT_FILE).unwrap(), Config::default());
    // Keys follow their # at once, explanations after a space.
    let said = DEFAULT_FILE.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
        _ => line,
    });
    let said = said.collect::<Vec<_>>().join("\n");
    assert_eq!(parse(&said).unwrap(), Config::default());
    let keys = toml::from_str::<toml::Table>(&said).unwrap();
    assert_eq!(keys.len(), 9, "every key but the handlers: {keys:?}");
}

#[test]
fn the_printed_example_of_a_handler_is_one() {
    let at = DEFAULT_FILE.find("# [handlers.husk]").unwrap();
    let example: Vec<&str> = DEFAULT_FILE[at..].lines().map(|line| line.trim_start_matches("# ")).collect();
    let handler = parse(&example.join("\n")).unwrap().handler("").unwrap();
    assert_eq!(handler.kernel, Some("/usr/lib/husk/vmlinux".into()));
    assert_eq!((handler.memory_mib, handler.debug), (Some(512), true));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        socket = "/s"
        root = "/r"
        run = "/n"
        registry_config_dir = "/c"
        cni_config_dir = "/d"
        cni_plugin_dirs = ["/p"]
        cgroup_driver = "systemd"
        log = "debug"
        allowed_annotations = ["husk.dev/a"]
        [handlers.big]
        memory_mib = 4096
        "#,
    )
    .unwrap();
    let big = Handler { memory_mib: Some(4096), ..Handler::default() };
    let expected = Config {
        socket: "/s".into(),
        root: "/r".into(),
        run: "/n".into(),
        registry_config_dir: "/c".into(),
        cni_config_dir: "/d".into(),
        cni_plugin_dirs: vec!["/p".into()],
        cgroup_driver: CgroupDriver::Systemd,
        log: LogLevel::Debug,
        allowed_annotations: vec!["husk.dev/a".to_owned()],
        handlers: BTreeMap::from([("big".to_owned(), big)]),
    };
    assert_eq!(config, expected);
}

#[test]
fn the_default_handler_is_there_whatever_the_file_says() {
    let config = Config::default();
    assert_eq!(config.handler_names(), ["", "husk"]);
    assert_eq!(config.handler("husk"), Some(Handler::default()));
    assert_eq!(config.handler("other"), None);
    let config = parse("[handlers.husk]\nmemory_mib = 99\n[handlers.a]\ndebug = true\n").unwrap();
    assert_eq!(config.handler_names(), ["", "husk", "a"]);
    assert_eq!(config.handler("").unwrap().memory_mib, Some(99));
    assert!(config.handler("a").unwrap().debug);
}

#[test]
fn the_environment_has_defaults_that_the_file_overrides() {
    let env = |variable: &str| Some(OsString::from(format!("/env/{variable}")));
    let config = Config::parse("run = \"/file\"", Path::new("x"), env).unwrap();
    assert_eq!(config.root, Path::new("/env/HUSK_ROOT"));
    assert_eq!(config.registry_config_dir, Path::new("/env/HUSK_REGISTRY_CONFIG_DIR"));
    assert_eq!((config.run.to_str(), config.socket.to_str()), (Some("/file"), Some("/file/cri.sock")));
    let error = Config::parse("", Path::new("x"), |_| Some("relative".into())).unwrap_err().to_string();
    assert!(error.contains("HUSK_ROOT=relative") && error.contains("absolute"), "{error}");
}

#[test]
fn an_error_names_file_line_key_and_mend() {
    for (text, line, words) in [
        ("socket = \"/a\"\nsokcet = 1\n", 2, ["sokcet", "expected one of"]),
        ("\n\nlog = \"loud\"", 3, ["\"log\"", "`info`"]),
        ("root = 5", 1, ["\"root\"", "string"]),
        ("root = \"var\"", 1, ["\"root\"", "absolute"]),
        ("cni_plugin_dirs = []", 1, ["cni_plugin_dirs", "empty"]),
        ("cni_plugin_dirs = [\"/a\", \"b\"]", 1, ["cni_plugin_dirs", "absolute"]),
        ("[handlers.a]\nmemory_mib = 1", 2, ["memory_mib", "64"]),
        ("[handlers.a]\nkernle = \"/a\"", 2, ["kernle", "expected"]),
        ("[handlers.A]\n", 1, ["\"A\"", "a-z"]),
        ("log = ", 1, ["log", "value"]),
    ] {
        let error = parse(text).unwrap_err();
        let ConfigError::Text { line: at, .. } = &error else { panic!("{error}") };
        let said = error.to_string();
        assert_eq!(*at, line, "{text}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{text}: {said}");
        assert!(said.contains("/etc/husk/config.toml") && said.contains("huskd config default"), "{said}");
    }
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let error = Config::load(Some(Path::new("/nonexistent/config.toml"))).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/config.toml") && error.contains("--config"), "{error}");
}

#[test]
fn annotations_are_allowed_by_name_or_by_their_beginning() {
    let config = Config { allowed_annotations: vec!["a/b".into(), "c/*".into()], ..Config::default() };
    assert!(config.allows("a/b") && config.allows("c/d"));
    assert!(!config.allows("a/bc") && !config.allows("d") && !Config::default().allows("a/b"));
}
