use super::*;

#[test]
fn a_path_that_no_honest_address_has_is_refused_everywhere() {
    let table: &[(Fault, &[&str])] = &[
        (Fault::NotAPath, &["", "*", "a", "http://evil.example/"]),
        (
            Fault::Climbs,
            &[
                "/..",
                "/../",
                "/a/..",
                "/a/../b",
                "/.",
                "/a/./b",
                "/...",
                "/%2e%2e/a",
                "/%2E./a",
                "/.%2e/a",
                "/a/%2e%2e",
                "/a%2f..%2fb",
                "/a%2F%2e%2e%2fb",
                "/%252e%252e/a",
                "/%25252e/a",
                "/a%252f%252e%252e/b",
                "/..;/a",
                "/..;x=y/a",
                "/a/..%3b/b",
                "/a/..%253bx/b",
                "/a%5C..%5cb",
                "/a/..%20/b",
                "/a/%20/b",
                "/a/%20..",
                "/a/.%09./b",
                "/a/..%C2%A0/b",
                "/a/%EF%BC%8E%EF%BC%8E/b",
                "/a/%E2%80%A5/b",
                "/a/%E2%80%A4%E2%80%A4/b",
                "/a/..%EF%BC%8Fb",
                "/a/..%EF%BC%BCb",
                "//..",
                "/wiki/%.%./admin",
                "/wiki/..%3Fx/admin",
                "/a/..%EF%BB%BF/b",
                "/a/..::$INDEX_ALLOCATION/b",
                "/a/(S(x))../b",
            ],
        ),
        (Fault::Control('\0'), &["/a%00", "/a%2500", "/a%00.png"]),
        (Fault::Control('\r'), &["/a%0d%0ab"]),
        (Fault::Control('\t'), &["/a\tb", "/%E9%09"]),
        (Fault::Control('\u{7f}'), &["/a%7f"]),
        (Fault::Control('\u{85}'), &["/a%c2%85"]),
        (Fault::Overlong, &["/a%c0%ae", "/%c0%ae%c0%ae/a", "/%e0%80%ae", "/%f0%80%80%ae", "/%25c0%25af"]),
        (Fault::WideEscape, &["/%u002e%u002e/a", "/wiki/%u0073ecret", "/a%U0041", "/a%25u0041"]),
        (Fault::TooDeep, &["/%252525252e", "/a%2525252541"]),
    ];
    for (expected, paths) in table {
        for path in *paths {
            let fault = read(path).fault();
            assert!(fault.is_some_and(|fault| !fault.may_pass()), "{path:?}: {fault:?}");
            let also_control = path.contains("%09");
            assert!(also_control || fault == Some(*expected), "{path:?}: {fault:?}");
        }
    }
}

#[test]
fn other_faults_pass_where_a_route_says_so() {
    let table: &[(Fault, &[&str])] = &[
        (Fault::NamesAHost, &["//", "//x/admin", "/%2fx/admin", "/%252fx/admin", "//k8s/api"]),
        (Fault::Backslash, &["/a\\b", "/a%5cb", "/a%255cb", "/a%EF%BC%BCb"]),
        (Fault::BadEscape, &["/a%", "/a%2", "/a%zz", "/wiki/100%", "/wiki/100%/%61"]),
        (Fault::NotEncoded(' '), &["/a b"]),
        (Fault::NotEncoded('\u{e9}'), &["/\u{e9}"]),
        (Fault::NotUtf8(0xe9), &["/caf%e9", "/caf%25e9"]),
        (Fault::EndsEarly('?'), &["/what%3f", "/private%3f.png", "/private%253f.png"]),
        (Fault::EndsEarly('#'), &["/c%23", "/c%2523"]),
    ];
    for (expected, paths) in table {
        for path in *paths {
            assert_eq!(read(path).fault(), Some(*expected), "{path:?}");
            assert!(expected.may_pass(), "{path:?}");
        }
    }
}

#[test]
fn the_words_name_the_character() {
    let table = [
        ("/a%5cb", "%5C"),
        ("/wiki/100%", "%25"),
        ("/what%3f", "%3F"),
        ("/caf%e9", "%E9"),
        ("/a%0a", "%0A"),
        ("/\u{e9}", "é"),
        ("//k8s", "two slashes"),
        ("/..", "'..'"),
    ];
    for (path, word) in table {
        let words = read(path).fault().unwrap().to_string();
        assert!(words.contains(word), "{path}: {words}");
    }
}

fn readings(raw: &str) -> Vec<String> {
    let read = read(raw);
    read.whole(raw).chain(read.aliases()).map(str::to_owned).collect()
}

#[test]
fn other_paths_are_read_in_each_way() {
    let table: &[(&str, &[&str], bool)] = &[
        ("/", &["/"], true),
        ("/a", &["/a"], true),
        ("/a/", &["/a/"], true),
        ("/A/B", &["/a/b"], true),
        ("/a//b", &["/a/b"], false),
        ("/a%2fb", &["/a%2fb", "/a/b"], false),
        ("/%61dmin", &["/%61dmin", "/admin"], false),
        ("/%2561dmin", &["/%2561dmin", "/%61dmin", "/admin"], false),
        ("/%252561dmin", &["/%252561dmin", "/%2561dmin", "/%61dmin", "/admin"], false),
        ("/a;x=1/b", &["/a/b"], false),
        ("/100%25", &["/100%25", "/100%"], false),
        ("/a..b/.c", &["/a..b/.c"], true),
        ("/private.", &["/private."], true),
        ("/private%20", &["/private%20", "/private "], false),
        ("/private.%20/x", &["/private.%20/x", "/private. /x"], false),
        ("/private%2e", &["/private%2e", "/private."], false),
        ("/adm%C4%B1n", &["/adm%c4%b1n", "/admin"], false),
        ("/%C5%BFtaff", &["/%c5%bftaff", "/staff"], false),
        ("/adm%C4%B0n", &["/adm%c4%b0n", "/admi\u{307}n", "/admin"], false),
        ("/index.php/admin", &["/index.php/admin", "/admin"], true),
        ("/a/index.php/admin", &["/a/index.php/admin", "/a/admin", "/admin"], true),
        ("/(S(x))/admin", &["/(s(x))/admin", "/admin"], true),
        ("/v1.2/app.1a2b.js", &["/v1.2/app.1a2b.js"], true),
        ("/App.js", &["/app.js"], true),
        ("/a:b/@user", &["/a:b/@user"], true),
        ("/a;x%2fy/b", &["/a/b", "/a/y/b"], false),
        ("/a%3bx%252fy/b", &["/a%3bx%252fy/b", "/a/b", "/a/y/b"], false),
        ("/%EF%BD%81dmin", &["/%ef%bd%81dmin", "/\u{ff41}dmin", "/admin"], false),
        ("/caf%c3%a9", &["/caf%c3%a9", "/caf\u{e9}"], false),
        ("/a%5Cb", &["/a%5cb", "/a\\b", "/a/b"], false),
        ("//k8s/a", &["/k8s/a", "/a"], false),
        ("/wiki/what%3fx", &["/wiki/what%3fx", "/wiki/what?x", "/wiki/what"], false),
        (
            "/wiki/%5Csecret%3Fx",
            &["/wiki/%5csecret%3fx", "/wiki/\\secret?x", "/wiki/secret?x", "/wiki/secret"],
            false,
        ),
        ("/wiki/100%", &["/wiki/100%", "/wiki/100"], false),
        ("/wiki/%secret", &["/wiki/%secret", "/wiki/secret"], false),
        (
            "/wiki/%%61dmin",
            &[
                "/wiki/%%61dmin",
                "/wiki/%61dmin",
                "/wiki/%admin",
                "/wiki/admin",
                "/wiki/\u{ad}min",
                "/wiki/\u{fffd}min",
            ],
            false,
        ),
        ("/caf%e9", &["/caf%e9", "/caf\u{e9}", "/caf\u{fffd}"], false),
    ];
    for (raw, expected, plain) in table {
        assert_eq!(readings(raw), *expected, "{raw}");
        assert_eq!(read(raw).is_plain(), *plain, "{raw}");
    }
}

#[test]
fn below_means_whole_segments() {
    let table = [
        ("/admin", "/admin", true),
        ("/admin/", "/admin", true),
        ("/admin/x", "/admin", true),
        ("/admin/x", "/admin/", true),
        ("/administrator", "/admin", false),
        ("/", "/admin", false),
        ("/anything", "/", true),
    ];
    for (path, prefix, expected) in table {
        assert_eq!(is_below(path, prefix), expected, "{path} {prefix}");
    }
}
