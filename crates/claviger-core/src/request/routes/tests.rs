use super::*;
use crate::request::path;

const SESSION: Admission = Admission::Vouched(Assurance::Session);

fn provider(secs: u64) -> Admission {
    Admission::Vouched(Assurance::Provider { max_age: Duration::from_secs(secs) })
}

fn policy(routes: &[(&str, Admission)]) -> Policy {
    let route = |(path, admission): &(&str, Admission)| route(path, &[], *admission);
    Policy::new(routes.iter().map(route))
}

fn route(path: &str, methods: &[&str], admission: Admission) -> Route {
    let methods = methods.iter().map(|method| (*method).to_owned()).collect();
    Route { path: path.to_owned(), methods, admission, ..Route::default() }
}

/// The admission of a GET.
fn admission(policy: &Policy, raw: &str) -> Result<Admission, Fault> {
    admission_by(policy, AskedMethod::One("GET"), raw)
}

fn admission_by(policy: &Policy, method: AskedMethod<'_>, raw: &str) -> Result<Admission, Fault> {
    policy.ruling(method, raw, &path::read(raw)).map(|ruling| ruling.admission)
}

const COOKIE: Admission = Admission::Vouched(Assurance::Cookie);

fn site() -> Policy {
    policy(&[
        ("/public", Admission::Anyone),
        ("/public/private", SESSION),
        ("/public/private/robots.txt", Admission::Anyone),
        ("/fast", COOKIE),
        ("/admin", provider(300)),
        ("/admin/pay", provider(0)),
        ("/admin/logo.png", Admission::Anyone),
    ])
}

#[test]
fn the_strictest_reading_of_a_path_decides() {
    let policy = site();
    let table = [
        ("/", SESSION),
        ("/elsewhere", SESSION),
        ("/public", Admission::Anyone),
        ("/public/", Admission::Anyone),
        ("/public/Picture%20of%20me.JPG", Admission::Anyone),
        ("/publicity", SESSION),
        ("/public/private/x", SESSION),
        ("/public//private", SESSION),
        ("/public/%70rivate", SESSION),
        ("/public/PRIVATE", SESSION),
        ("/public/private.json", SESSION),
        ("/public/private.tar.gz", SESSION),
        ("/public/private%2ejson", SESSION),
        ("/public/private.", SESSION),
        ("/public/private..", SESSION),
        ("/public/private%20", SESSION),
        ("/public/private%20/x", SESSION),
        ("/public/private.%20/x", SESSION),
        ("/public/priv%61te;x.json", SESSION),
        ("/public/%25252570rivate", SESSION),
        ("/public/%EF%BD%90rivate", SESSION),
        ("/public/private/robots.txt", Admission::Anyone),
        ("/PUBLIC", SESSION),
        ("/fast/lane", COOKIE),
        ("/admin", provider(300)),
        ("/ADMIN", provider(300)),
        ("/x//admin", SESSION),
        ("/%61dmin", provider(300)),
        ("/%2561dmin", provider(300)),
        ("/admin;x/y", provider(300)),
        ("/admin.json", provider(300)),
        ("/admin/pay", provider(0)),
        ("/admin//pay", provider(0)),
        ("/admin/pay.json", provider(0)),
        ("/admin/logo.png", Admission::Anyone),
        ("/admin//logo.png", provider(300)),
        ("/%61dmin/logo.png", provider(300)),
    ];
    for (raw, expected) in table {
        let Ok(admission) = admission(&policy, raw) else {
            assert!(raw.contains("%252525"), "{raw}");
            continue;
        };
        assert_eq!(admission, expected, "{raw}");
    }
}

#[test]
fn what_servers_drop_from_a_path_hides_no_rule() {
    let policy = site();
    let table = [
        ("/admin.json/x", provider(300)),
        ("/admin.php/x", provider(300)),
        ("/admin%20.css", provider(300)),
        ("/admin%C2%A0", provider(300)),
        ("/admin%C2%A0/x", provider(300)),
        ("/admin%E3%80%80", provider(300)),
        ("/admin%E3%80%80/x", provider(300)),
        ("/admin%EF%BB%BF", provider(300)),
        ("/admin::$DATA", provider(300)),
        ("/admin.php::$DATA/x", provider(300)),
        ("/adm%C4%B1n", provider(300)),
        ("/adm%C4%B0n", provider(300)),
        ("/index.php/admin", provider(300)),
        ("/public/index.php/admin", provider(300)),
        ("/public/INDEX.PHP/%61dmin", provider(300)),
        ("/index.php/admin.php/x", provider(300)),
        ("/(S(x))/admin", provider(300)),
        ("/(S(x))/(A(y))/admin", provider(300)),
        ("/public/(S(x))/priv/(S(y))ate", SESSION),
        ("/public/index.php/private", SESSION),
        ("/public/v1.2/private", Admission::Anyone),
        ("/public/a:b", Admission::Anyone),
        ("/public/@user", Admission::Anyone),
        ("/public/app.1a2b.js", Admission::Anyone),
        ("/public/index.php/x", SESSION),
        ("/public/private/robots.txt/", Admission::Anyone),
    ];
    for (raw, expected) in table {
        assert_eq!(admission(&policy, raw), Ok(expected), "{raw}");
    }
}

#[test]
fn a_rule_with_a_suffix_speaks_for_itself_and_all_below() {
    let policy = policy(&[
        ("/v1.beta", Admission::Anyone),
        ("/v1", provider(0)),
        ("/index.php", Admission::Anyone),
        ("/files", Admission::Anyone),
        ("/files/get.php", Admission::Anyone),
        ("/Site.Com/admin", provider(0)),
    ]);
    let table = [
        ("/v1.beta", Admission::Anyone),
        ("/v1.beta/", Admission::Anyone),
        ("/v1.beta/x", Admission::Anyone),
        ("/v1.beta/x.json", Admission::Anyone),
        ("/v1.beta.json", provider(0)),
        ("/v1.rc/x", provider(0)),
        ("/v1.2/x", SESSION),
        ("/V1.beta/x", provider(0)),
        ("/index.php/v1", provider(0)),
        ("/index.php/x", Admission::Anyone),
        ("/files/get.php/x.zip", Admission::Anyone),
        ("/files/index.php/x", SESSION),
        ("/files/x.php", Admission::Anyone),
        ("/site.com/admin.php/x", provider(0)),
    ];
    for (raw, expected) in table {
        assert_eq!(admission(&policy, raw), Ok(expected), "{raw}");
    }
}

#[test]
fn readings_are_bounded() {
    let hostile = ["/\\%3f%%;%2f(S(x))a.php/%EF%BC%BC", "/a.php/(S(x))b;%2F?", "/%25%5C%253f;"];
    for part in hostile {
        let raw = format!("/{}", part.repeat(500));
        let readings = path::read(&raw);
        let count = readings.whole(&raw).count() + readings.aliases().count();
        assert!(count < 128, "{part}: {count}");
    }
}

#[test]
fn without_rules_everything_needs_a_session() {
    let policy = Policy::default();
    for raw in ["/", "/anything", "/A%20b.c"] {
        let readings = path::read(raw);
        assert_eq!(admission(&policy, raw), Ok(SESSION), "{raw}");
        for method in [AskedMethod::One("GET"), AskedMethod::Any] {
            assert_eq!(policy.asks(method, raw, &readings), Ok(None), "{raw}");
        }
    }
}

#[test]
fn a_route_may_tolerate_faults_and_the_strictest_reading_still_decides() {
    let route = |path: &str, admission, faults| Route { faults, ..route(path, &[], admission) };
    let policy = Policy::new([
        route("/wiki", Admission::Anyone, Faults::Tolerated),
        route("/wiki/secret", provider(0), Faults::Refused),
        route("/strict", Admission::Anyone, Faults::Refused),
    ]);
    let table = [
        ("/wiki/100%", Ok(Admission::Anyone)),
        ("/wiki/a%5Cb", Ok(Admission::Anyone)),
        ("/wiki/what%3F", Ok(Admission::Anyone)),
        ("/wiki/caf%e9", Ok(Admission::Anyone)),
        ("/wiki%5Csecret", Err(Fault::Backslash)),
        ("/wiki/x%5C..%5Csecret", Err(Fault::Climbs)),
        ("/wiki/secret%3F.png", Ok(provider(0))),
        ("/wiki/%5Csecret", Ok(provider(0))),
        ("/wiki/%5Csecret%3Fx", Ok(provider(0))),
        ("/wiki/%5Csecret%23x", Ok(provider(0))),
        ("/wiki/%EF%BC%BCsecret%EF%BC%9Fx", Ok(provider(0))),
        ("/wiki/%u0073ecret", Err(Fault::WideEscape)),
        ("/wiki/%u002e%u002e/admin", Err(Fault::WideEscape)),
        ("/wiki/%.%./admin", Err(Fault::Climbs)),
        ("/wiki/%secret", Ok(provider(0))),
        ("/wiki/se%cret", Ok(provider(0))),
        ("/wiki/..%3Fx", Err(Fault::Climbs)),
        ("/wiki/%%41", Ok(Admission::Anyone)),
        ("/wiki/%00", Err(Fault::Control('\0'))),
        ("/strict/100%", Err(Fault::BadEscape)),
        ("/100%", Err(Fault::BadEscape)),
        ("//wiki/100%", Err(Fault::NamesAHost)),
    ];
    for (raw, expected) in table {
        assert_eq!(admission(&policy, raw), expected, "{raw}");
    }
    let everywhere = Policy::new([
        route("/", Admission::Anyone, Faults::Tolerated),
        route("/admin", provider(0), Faults::Refused),
    ]);
    for (raw, expected) in
        [("//k8s/api", Admission::Anyone), ("//k8s/admin", provider(0)), ("//admin", provider(0))]
    {
        assert_eq!(admission(&everywhere, raw), Ok(expected), "{raw}");
    }
    let partly = Policy::new([route("/a", Admission::Anyone, Faults::Tolerated)]);
    for (raw, expected) in [("/a/%5Cb", Admission::Anyone), ("/a%2F%5Cb", Admission::DEFAULT)] {
        let found = admission(&partly, raw);
        assert!(found == Ok(expected) || raw == "/a%2F%5Cb" && found.is_err(), "{raw}: {found:?}");
    }
}

#[test]
fn a_rule_may_be_for_certain_methods() {
    let policy = Policy::new([
        route("/", &["GET"], Admission::Anyone),
        route("/api", &[], SESSION),
        route("/api", &["GET"], Admission::Anyone),
        route("/api/pay", &["POST", "PUT"], provider(0)),
    ]);
    let table = [
        ("GET", "/", Admission::Anyone),
        ("HEAD", "/x", Admission::Anyone),
        ("POST", "/", Admission::DEFAULT),
        ("get", "/", Admission::DEFAULT),
        ("OPTIONS", "/", Admission::DEFAULT),
        ("GET", "/api", Admission::Anyone),
        ("HEAD", "/api", Admission::Anyone),
        ("POST", "/api", SESSION),
        ("POST", "/api/pay", provider(0)),
        ("PUT", "/API/Pay.json", provider(0)),
        ("POST", "/api//pay", provider(0)),
        ("DELETE", "/api/pay", SESSION),
        ("GET", "/api/pay", Admission::Anyone),
    ];
    for (method, raw, expected) in table {
        assert_eq!(admission_by(&policy, AskedMethod::One(method), raw), Ok(expected), "{method} {raw}");
    }
    for (raw, expected) in [("/", SESSION), ("/api", SESSION), ("/api/pay", provider(0)), ("/x", SESSION)] {
        assert_eq!(admission_by(&policy, AskedMethod::Any, raw), Ok(expected), "any method, {raw}");
    }
}

#[test]
fn other_origins_are_allowed_where_the_path_has_one_reading() {
    let (friend, stranger) = (&b"https://www.app.example"[..], &b"https://evil.example"[..]);
    let cross_origin = |passes_preflights| CrossOrigin {
        allowed: vec!["https://www.app.example".to_owned()],
        passes_preflights,
    };
    let policy = Policy::new([
        Route { cross_origin: cross_origin(false), ..route("/api", &[], SESSION) },
        Route { cross_origin: cross_origin(true), ..route("/own", &[], SESSION) },
        Route { cross_origin: cross_origin(false), ..route("/read", &["GET"], SESSION) },
        route("/api/admin", &[], provider(0)),
    ]);
    let table = [
        ("GET", "/api/x", friend, true, Preflight::Allowed),
        ("POST", "/api", friend, true, Preflight::Allowed),
        ("POST", "/api", stranger, false, Preflight::Ordinary),
        ("POST", "/api", b"null", false, Preflight::Ordinary),
        ("POST", "/api/admin", friend, false, Preflight::Ordinary),
        ("POST", "/api/ADMIN", friend, false, Preflight::Ordinary),
        ("POST", "/api/%61dmin", friend, false, Preflight::Ordinary),
        ("POST", "/own", friend, true, Preflight::Passes),
        ("POST", "/own", stranger, false, Preflight::Passes),
        ("GET", "/read", friend, true, Preflight::Allowed),
        ("POST", "/read", friend, false, Preflight::Ordinary),
        ("GET", "/elsewhere", friend, false, Preflight::Ordinary),
    ];
    for (method, raw, origin, allows, preflight) in table {
        let ruling = policy.ruling(AskedMethod::One(method), raw, &path::read(raw)).unwrap();
        let rule = ruling.cross_origin;
        assert_eq!(rule.is_some_and(|rule| rule.allows(origin)), allows, "{method} {raw}");
        let found = rule.map_or(Preflight::Ordinary, |rule| rule.preflight(origin));
        assert_eq!(found, preflight, "{method} {raw}");
    }
}

/// Found by the fuzz target `path`.
#[test]
fn a_path_is_changed_before_it_is_decoded_or_after() {
    let open = Route { faults: Faults::Tolerated, ..route("/", &[], Admission::Anyone) };
    let policy = Policy::new([open, route("/admin", &[], provider(0))]);
    for raw in ["//x%2Fy/%61dmin", "//x\\y/admin", "/adm%C4%B1n/%FF"] {
        assert_eq!(admission(&policy, raw), Ok(provider(0)), "{raw}");
    }
}
