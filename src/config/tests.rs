//! What the settings take and what they refuse.

use super::reader::parse_size;
use super::*;

fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let values = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_values(&values)
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let config = config(&[]).unwrap();
    assert_eq!(config.http.bind, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.database_url, "sqlite://data/imagegate.db");
    assert_eq!(config.journal, Path::new("data/journal"));
    assert_eq!(config.http.body_limit, 33_554_432);
    assert_eq!(config.http.success_status, 201);
    assert_eq!(config.sales.deadline, Duration::from_mins(5));
    assert_eq!(config.sandbox.delay, Duration::from_secs(1));
    assert_eq!((config.projects.requests_per_minute, config.projects.images_per_minute), (Some(600), Some(1200)));
    assert!(config.fal.keys.is_empty() && !config.fal.addresses_set);
    assert_eq!(config.fal.media_hosts, ["fal.media", "*.fal.media", "queue.fal.run", "fal.run", "rest.fal.ai"]);
}

#[test]
fn a_bad_setting_names_the_variable_the_value_and_what_is_allowed() {
    for (name, value) in [
        ("IMAGEGATE_BIND", "nowhere"),
        ("IMAGEGATE_MARKUP", "-1"),
        ("IMAGEGATE_MARKUP", "a lot"),
        ("IMAGEGATE_SUCCESS_STATUS", "202"),
        ("IMAGEGATE_DEADLINE", "soon"),
        ("IMAGEGATE_DEADLINE", "0s"),
        ("IMAGEGATE_DEFAULT_REQUESTS_PER_MINUTE", "0"),
        ("IMAGEGATE_DEFAULT_IMAGES_PER_MINUTE", "-5"),
        ("IMAGEGATE_BODY_LIMIT", "big"),
        ("IMAGEGATE_LOG_FORMAT", "xml"),
        ("FAL_QUEUE_URL", "queue.fal.run"),
        ("IMAGEGATE_PUBLIC_URL", "ftp://x"),
        ("IMAGEGATE_WEBHOOK_ALLOW_PRIVATE", "perhaps"),
        ("IMAGEGATE_TRUSTED_PROXIES", ","),
        ("IMAGEGATE_CORS_ORIGINS", "nope"),
        ("IMAGEGATE_CORS_ORIGINS", "https://a.example/path"),
        ("IMAGEGATE_CORS_ORIGINS", "https://a.example/"),
        ("IMAGEGATE_CORS_ORIGINS", "https://*.example"),
        ("IMAGEGATE_CORS_ORIGINS", ","),
        ("FAL_MEDIA_HOSTS", "*"),
        ("FAL_MEDIA_HOSTS", "http://fal.media"),
        ("FAL_MEDIA_HOSTS", "fal.media:443"),
        ("FAL_MEDIA_HOSTS", "a..b"),
        ("FAL_MEDIA_HOSTS", "fal.*.media"),
        ("FAL_MEDIA_HOSTS", ","),
    ] {
        let sentence = config(&[(name, value)]).unwrap_err().to_string();
        assert!(sentence.contains(name) && sentence.contains(value), "{sentence}");
    }
}

#[test]
fn origins_and_hosts_are_read_as_browsers_and_addresses_have_them() {
    let origins = |value: &str| config(&[("IMAGEGATE_CORS_ORIGINS", value)]).map(|config| config.http.cors_origins);
    assert_eq!((origins("").unwrap(), origins("*").unwrap()), (None, None));
    let several = origins("https://A.example:443, http://localhost:5173,http://[::1]:80,tauri://localhost").unwrap();
    assert_eq!(several.unwrap(), ["https://a.example", "http://localhost:5173", "http://[::1]", "tauri://localhost"]);
    let sentence = origins("https://a.example,*").unwrap_err().to_string();
    assert!(sentence.contains("`*` is not allowed: `*` alone"), "{sentence}");
    let hosts = config(&[("FAL_MEDIA_HOSTS", "Cdn.example, *.fal.media,127.0.0.1,[::1]")]).unwrap().fal.media_hosts;
    assert_eq!(hosts[..4], ["cdn.example", "*.fal.media", "127.0.0.1", "[::1]"]);
}

#[test]
fn two_keys_of_one_value_are_told_with_both_variables() {
    let same = "hush-Zq81-vRw7-hush";
    let refused = config(&[("IMAGEGATE_ADMIN_KEY", same), ("IMAGEGATE_BOOTSTRAP_KEY", same)]).unwrap_err().to_string();
    assert!(refused.contains("IMAGEGATE_ADMIN_KEY") && refused.contains("IMAGEGATE_BOOTSTRAP_KEY"), "{refused}");
    assert!(!refused.contains("hush"), "{refused}");
}

#[test]
fn a_key_that_is_easily_guessed_is_refused_and_the_sentence_says_how_to_make_one() {
    let weak = [
        "aaaaaaaaaaaaaaaa",
        "1234567890123456",
        "passwordpassword1",
        "changemechangeme",
        "0123456789abcdef0123456789abcdef",
        "admin-admin-admin-admin",
        "qwertyuiopasdfghjkl",
        "at-least-sixteen-characters",
    ];
    for name in ["IMAGEGATE_ADMIN_KEY", "IMAGEGATE_BOOTSTRAP_KEY", "IMAGEGATE_FILE_SECRET"] {
        for value in weak {
            let sentence = config(&[(name, value), ("IMAGEGATE_FILE_TTL", "1h")]).unwrap_err().to_string();
            assert!(sentence.contains(name) && sentence.contains("openssl rand -hex 32"), "{value}: {sentence}");
            assert!(!sentence.contains(value), "{sentence}");
        }
    }
    config(&[("IMAGEGATE_ADMIN_KEY", "5f0c6c1e9a7d4b3f8e2a1d0c9b8a7f6e")]).unwrap();
}

#[test]
fn no_key_of_an_example_file_is_accepted() {
    let files = [
        include_str!("../../deploy/kubernetes/secret.example.yaml"),
        include_str!("../../docker-compose.yml"),
        include_str!("../../.env.example"),
        include_str!("../../README.md"),
        include_str!("../../docs/operations.md"),
    ];
    let mut seen = 0;
    for line in files.iter().flat_map(|file| file.lines()) {
        for name in ["IMAGEGATE_ADMIN_KEY", "IMAGEGATE_BOOTSTRAP_KEY"] {
            let Some((_, rest)) = line.split_once(name) else { continue };
            let Some(value) = rest.strip_prefix('=').or_else(|| rest.strip_prefix(": ")) else { continue };
            let value = value.trim().trim_matches(['"', '\'', '`']);
            if value.is_empty() || value.starts_with(['$', '…']) {
                continue;
            }
            seen += 1;
            assert!(config(&[(name, value)]).is_err(), "`{value}` of an example file is accepted");
        }
    }
    assert!(seen >= 1, "no example was found");
}

#[test]
fn a_secret_is_in_no_sentence() {
    for (name, value) in [
        ("IMAGEGATE_ADMIN_KEY", "hush"),
        ("FAL_KEY", "hush*0"),
        ("FAL_KEY", ","),
        ("DATABASE_URL", "mysql://me:hush@host/db"),
    ] {
        let sentence = config(&[(name, value)]).unwrap_err().to_string();
        assert!(sentence.contains(name) && !sentence.contains("hush"), "{sentence}");
    }
    let config = config(&[("IMAGEGATE_ADMIN_KEY", "hush-Zq81-vRw7-hush")]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn fal_keys_carry_weights() {
    let config = config(&[("FAL_KEY", "a:b*3, c:d")]).unwrap();
    let keys: Vec<_> = config.fal.keys.iter().map(|key| (key.key.expose(), key.weight)).collect();
    assert_eq!(keys, [("a:b", 3), ("c:d", 1)]);
}

#[test]
fn the_settings_file_uses_the_same_names_in_sections() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("imagegate.toml");
    std::fs::write(&file, "[imagegate]\nbind = \"127.0.0.1:9\"\nsuccess_status = 200\n[fal]\nkey = \"a:b\"\n").unwrap();
    let values = read_toml(&file).unwrap();
    assert_eq!(values["IMAGEGATE_BIND"], "127.0.0.1:9");
    assert_eq!(values["IMAGEGATE_SUCCESS_STATUS"], "200");
    assert_eq!(values["FAL_KEY"], "a:b");
    std::fs::write(&file, "[imagegate]\nbnid = \"127.0.0.1:9\"\n").unwrap();
    assert!(read_toml(&file).unwrap_err().to_string().contains("imagegate.bnid"));
}

#[test]
fn times_and_sizes_are_read_with_their_units() {
    assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(parse_duration("2m"), Some(Duration::from_mins(2)));
    assert_eq!(parse_duration("0"), Some(Duration::ZERO));
    assert_eq!(parse_duration("-1s"), None);
    assert_eq!(parse_size("32MiB"), Some(33_554_432));
    assert_eq!(parse_size("0"), None);
}

#[test]
fn a_storage_is_a_place_with_the_clouds_own_settings_and_links_need_time_and_secret() {
    let place = ("IMAGEGATE_STORAGE", "s3://pictures/of/cats");
    let storage = config(&[place, ("AWS_REGION", "x"), ("AZURE_CLIENT_ID", "y")]).unwrap().storage.unwrap();
    assert_eq!((storage.url.as_str(), storage.options.len(), storage.links.is_none()), (place.1, 2, true));
    let secret = ("IMAGEGATE_FILE_SECRET", "a-secret-of-the-tests");
    let (ttl, storage) = (("IMAGEGATE_FILE_TTL", "1h"), |pairs: &[(&str, &str)]| config(pairs).map(|all| all.storage));
    let links = storage(&[place, ttl, secret]).unwrap().unwrap().links.unwrap();
    assert_eq!((links.0, links.1.expose()), (Duration::from_hours(1), secret.1));
    assert!(!format!("{links:?}").contains(secret.1));
    for pairs in [&[place, ttl][..], &[place, secret], &[place, ttl, ("IMAGEGATE_FILE_SECRET", "short")]] {
        assert!(storage(pairs).is_err(), "{pairs:?}");
    }
    for wrong in ["pictures", "/var/pictures", "http://host/x", "s3:///x", "file://relative/x"] {
        assert!(storage(&[("IMAGEGATE_STORAGE", wrong)]).is_err(), "{wrong}");
    }
    assert!(storage(&[]).unwrap().is_none());
}
