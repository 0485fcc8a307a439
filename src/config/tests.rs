use std::path::Path;
use std::time::Duration;

use super::*;
use crate::units::ByteSize;

fn check(text: &str) -> Result<Config, CheckConfigError> {
    Config::from_layers(&[(Path::new("/stick/site.toml"), text)])
}

#[test]
fn the_defaults_alone_are_a_valid_configuration() {
    let config = Config::from_layers(&[]).unwrap();
    assert_eq!(config.wan.api_url.host(), "api.server.commerce-hub.io");
    assert_eq!(config.wan.api_url.port(), 443);
    assert!(!config.lan.support);
    assert_eq!(config.devices.command_port, 8081);
}

#[test]
fn all_problems_come_at_once_with_file_line_and_key() {
    let error = check(
        "[wan]\napi_url = \"http://plain\"\n[wan.proxy]\nurl = 3\n[lan.limits]\nmax_conections = 5\nidle_timeout_s = 0\n",
    )
    .unwrap_err();
    let text = error.to_string();
    for expected in [
        "/stick/site.toml:2: wan.api_url: ",
        "/stick/site.toml:4: wan.proxy.url: a text in quotes is expected here, not a whole number",
        "/stick/site.toml:6: lan.limits.max_conections: there is no such setting",
        "/stick/site.toml:7: lan.limits.idle_timeout_s: 0 is not between 1 and 600",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert_eq!(error.problems.len(), 4);
}

#[test]
fn text_that_is_not_toml_is_named_by_line() {
    let text = check("[site]\nsite_id = \"s1\"\nname = \"un\n")
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("/stick/site.toml:3: this is not TOML"),
        "{text}"
    );
}

#[test]
fn a_misplaced_key_gets_a_hint() {
    let text = check("command_port = 1\n").unwrap_err().to_string();
    assert!(
        text.contains("did you mean devices.command_port?"),
        "{text}"
    );
}

#[test]
fn later_layers_win_key_by_key() {
    let config = Config::from_layers(&[
        (
            Path::new("image.toml"),
            "[site]\nname = \"a\"\nsite_id = \"s1\"\n",
        ),
        (
            Path::new("/stick/site.toml"),
            "[site]\nname = \"b\"\n[wan.trust]\nca_files = [\"ca.pem\"]\n",
        ),
    ])
    .unwrap();
    assert_eq!(config.site.name, "b");
    assert_eq!(config.site.site_id, "s1");
    assert_eq!(config.wan.bus.queue, "");
    assert_eq!(config.wan.ca_files, [Path::new("/stick/ca.pem")]);
}

#[test]
fn a_password_in_the_proxy_address_is_refused_without_repeating_it() {
    let text = check("[wan.proxy]\nurl = \"http://u:hunter2@proxy:3128\"\n")
        .unwrap_err()
        .to_string();
    assert!(text.contains("wan.proxy.password"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn telemetry_is_told_never_or_not_too_often() {
    let push = |period: &str| {
        let text = format!("[wan.push]\ntelemetry_period_s = {period}\n");
        check(&text).map(|config| config.wan.push.telemetry_period)
    };
    assert_eq!(push("0").unwrap(), None);
    assert_eq!(push("60").unwrap(), Some(Duration::from_secs(60)));
    let text = push("59").unwrap_err().to_string();
    assert!(text.contains("wan.push.telemetry_period_s"), "{text}");
}

#[test]
fn media_have_a_window_and_a_cap_or_none() {
    let media = check("[wan.media]\nwindow = \"22:00-06:00\"\nrate_cap_kib_s = 64\n").unwrap();
    let media = media.wan.media;
    assert!(media.window.is_some());
    assert_eq!(media.rate_cap, Some(ByteSize::kib(64)));
    let none = check("").unwrap().wan.media;
    assert!(none.window.is_none() && none.rate_cap.is_none());
    let wrong = "[site]\ntime_zone = \"Mars\"\n[wan.media]\nwindow = \"10-6\"\nparallel = 9\n";
    let text = check(wrong).unwrap_err().to_string();
    for part in ["\"Mars\"", "\"10-6\"", "wan.media.parallel"] {
        assert_eq!(text.matches(part).count(), 1, "{part} once in {text}");
    }
}

#[test]
fn secrets_do_not_print() {
    let config = check("[wan]\ntoken = \"t0ps3cret\"\n[wan.bus]\nkey = \"k3y\"\n").unwrap();
    let text = format!("{config:?}");
    assert!(
        !text.contains("t0ps3cret") && !text.contains("k3y"),
        "{text}"
    );
}

#[test]
fn an_import_takes_good_settings_and_keeps_the_old_ones_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let (stick, site_file) = (dir.path().join("stick"), dir.path().join("site/site.toml"));
    let image_file = dir.path().join("absent.toml");
    fs::create_dir(&stick).unwrap();
    assert!(matches!(
        import_site(&stick, &image_file, &site_file),
        Err(ImportSiteError::Missing(_))
    ));
    fs::write(stick.join("ca.pem"), "pem").unwrap();
    fs::write(
        stick.join("site.toml"),
        "[wan.trust]\nca_files = [\"ca.pem\"]\n",
    )
    .unwrap();
    assert_eq!(
        import_site(&stick, &image_file, &site_file).unwrap(),
        Imported::Taken { ca_files: 1 }
    );
    assert_eq!(
        import_site(&stick, &image_file, &site_file).unwrap(),
        Imported::Unchanged
    );
    fs::write(stick.join("site.toml"), "[wan]\nbogus = 1\n").unwrap();
    assert!(import_site(&stick, &image_file, &site_file).is_err());
    let config = Config::load(&image_file, &site_file).unwrap();
    assert_eq!(config.wan.ca_files, [dir.path().join("site/ca.pem")]);
}

#[test]
fn a_certificate_outside_the_stick_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("site.toml"),
        "[wan.trust]\nca_files = [\"../../etc/shadow\"]\n",
    )
    .unwrap();
    let error = import_site(
        dir.path(),
        Path::new("absent"),
        &dir.path().join("to/site.toml"),
    );
    assert!(matches!(error, Err(ImportSiteError::CaFile { .. })));
}

#[test]
fn a_wrong_site_file_leaves_the_image_settings_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (image, site) = (dir.path().join("image.toml"), dir.path().join("site.toml"));
    fs::write(&image, "[devices]\norder_role = \"bar\"\n").unwrap();
    fs::write(&site, "[devices]\norder_role = 7\n").unwrap();
    let (config, refused) = Config::load_or_without_site(&image, &site).unwrap();
    assert_eq!(config.devices.order_role, "bar");
    assert!(refused.unwrap().to_string().contains("devices.order_role"));
    fs::write(&image, "[devices]\nbogus = 7\n").unwrap();
    assert!(Config::load_or_without_site(&image, &site).is_err());
}

#[test]
fn an_update_window_is_a_span_of_the_shops_local_time() {
    let config = check("[update]\nwindow = \"\"\n").unwrap();
    assert!(config.update.window.is_none());
    let text = check(
        "[site]\ntime_zone = \"Paris\"\n[update]\nwindow = \"at night\"\ndowngrade = \"always\"\n",
    )
    .unwrap_err()
    .to_string();
    for expected in [
        "site.toml:2: site.time_zone: \"Paris\" is no time zone",
        "site.toml:4: update.window: \"at night\" is no span",
        "site.toml:5: update.downgrade: \"always\" is not one of forced, never",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}
