//! Where a URL says that Redis is: one server, a master that sentinels name, or a cluster.

use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use crate::ledger::redis::BadRedisUrl;
use crate::ledger::redis::node::Replicas;

/// Where a sentinel listens unless the URL says otherwise.
const SENTINEL_PORT: u16 = 26379;

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Address {
    One(ConnectionInfo),
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        /// Name of the master, as the sentinels know it.
        master: String,
        /// User, password and database at the master.
        redis: RedisConnectionInfo,
    },
    Cluster {
        /// Asked for the others.
        seeds: Vec<ConnectionInfo>,
        redis: RedisConnectionInfo,
    },
}

/// What may follow `?` in the URLs of sentinels and of a cluster.
#[derive(Default)]
struct Options {
    db: i64,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    replicas: Replicas,
}

impl Address {
    /// The address, and how many replicas must have what a command wrote before it is answered.
    pub(super) fn parse(url: &str) -> Result<(Address, Replicas), BadRedisUrl> {
        if let Some(rest) = url.strip_prefix("redis+sentinel://") {
            let expected = "redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/MASTER\
                            [?db=&sentinel_user=&sentinel_password=&replicas=&replicas_for=all|money]";
            return sentinels(rest).ok_or_else(|| BadRedisUrl(format!("expected {expected}")));
        }
        if let Some(rest) = url.strip_prefix("redis+cluster://") {
            let expected = "redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT\
                            [?replicas=&replicas_for=all|money]";
            return cluster(rest).ok_or_else(|| BadRedisUrl(format!("expected {expected}")));
        }
        let one = url.into_connection_info();
        let none = Replicas::default();
        one.map(|one| (Address::One(one), none)).map_err(|error| BadRedisUrl(error.to_string()))
    }
}

fn sentinels(rest: &str) -> Option<(Address, Replicas)> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, master) = rest.split_once('/')?;
    let known = ["db", "sentinel_user", "sentinel_password", "replicas", "replicas_for"];
    let options = Options::parse(query, &known)?;
    let (hosts, redis) = hosts(place, Some(SENTINEL_PORT))?;
    let redis = redis.set_db(options.db);
    let mut sentinel = RedisConnectionInfo::default();
    if let Some(user) = options.sentinel_user {
        sentinel = sentinel.set_username(user);
    }
    if let Some(password) = options.sentinel_password {
        sentinel = sentinel.set_password(password);
    }
    let sentinels =
        hosts.into_iter().map(|host| host.set_redis_settings(sentinel.clone())).collect();
    let master = (!master.is_empty() && !master.contains('/')).then(|| master.to_owned())?;
    Some((Address::Sentinels { sentinels, master, redis }, options.replicas))
}

fn cluster(rest: &str) -> Option<(Address, Replicas)> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let options = Options::parse(query, &["replicas", "replicas_for"])?;
    let (seeds, redis) = hosts(place.strip_suffix('/').unwrap_or(place), None)?;
    Some((Address::Cluster { seeds, redis }, options.replicas))
}

/// `[USER:PASSWORD@]HOST:PORT,…`: the hosts, and who one is there.
fn hosts(
    place: &str,
    default_port: Option<u16>,
) -> Option<(Vec<ConnectionInfo>, RedisConnectionInfo)> {
    let (user, hosts) = match place.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), place),
    };
    if place.contains('/') {
        return None;
    }
    let read = |host: &str| {
        let has_port = host.rsplit(']').next().unwrap_or(host).contains(':');
        let port = default_port.filter(|_| !has_port).map(|port| format!(":{port}"));
        let url = format!("redis://{user}{host}{}", port.unwrap_or_default());
        if host.is_empty() { None } else { url.as_str().into_connection_info().ok() }
    };
    let hosts = hosts.split(',').map(read).collect::<Option<Vec<_>>>()?;
    let redis = hosts.first()?.redis_settings().clone();
    Some((hosts, redis))
}

impl Options {
    fn parse(query: &str, known: &[&str]) -> Option<Options> {
        let (mut options, mut is_for_some) = (Options::default(), false);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                name if !known.contains(&name) => return None,
                "db" => options.db = value.parse().ok().filter(|db| *db >= 0)?,
                "sentinel_user" => options.sentinel_user = Some(value.into_owned()),
                "sentinel_password" => options.sentinel_password = Some(value.into_owned()),
                "replicas_for" => {
                    is_for_some = true;
                    options.replicas.for_money = match value.as_ref() {
                        "money" => true,
                        "all" => false,
                        _ => return None,
                    };
                }
                _ => {
                    let number = value.parse().ok().filter(|replicas| *replicas <= 10)?;
                    options.replicas.number = number;
                }
            }
        }
        // For nobody it would do nothing.
        (!is_for_some || options.replicas.number > 0).then_some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_sentinels_names_them_the_master_and_two_sorts_of_users() {
        let url = "redis+sentinel://me:p%40ss@one:1,two/main?db=2&sentinel_password=s%26t\
                   &replicas=1";
        let (address, replicas) = Address::parse(url).expect("a url");
        let Address::Sentinels { sentinels, master, redis } = address else {
            panic!("{address:?}")
        };
        let places: Vec<String> = sentinels.iter().map(|one| one.addr().to_string()).collect();
        assert_eq!(places, ["one:1", "two:26379"]);
        assert_eq!((master.as_str(), redis.db()), ("main", 2));
        assert_eq!(replicas, Replicas { number: 1, for_money: false });
        assert_eq!((redis.username(), redis.password()), (Some("me"), Some("p@ss")));
        let sentinel = sentinels[0].redis_settings();
        assert_eq!((sentinel.username(), sentinel.password()), (None, Some("s&t")));
    }

    #[test]
    fn a_url_of_a_cluster_names_some_of_its_nodes() {
        let url = "redis+cluster://:secret@one:7000,[::1]:7001";
        let (address, replicas) = Address::parse(url).expect("a url");
        let Address::Cluster { seeds, redis } = address else { panic!("{address:?}") };
        let places: Vec<String> = seeds.iter().map(|one| one.addr().to_string()).collect();
        assert_eq!(places, ["one:7000", "::1:7001"]);
        assert_eq!((redis.password(), replicas), (Some("secret"), Replicas::default()));
    }

    #[test]
    fn replicas_are_waited_for_by_all_or_by_what_money_is_moved_by() {
        for (query, number, for_money) in [
            ("replicas=2", 2, false),
            ("replicas=2&replicas_for=all", 2, false),
            ("replicas_for=money&replicas=1", 1, true),
        ] {
            let expected = Replicas { number, for_money };
            for url in ["redis+sentinel://one:1/main", "redis+cluster://one:1"] {
                let parsed = Address::parse(&format!("{url}?{query}")).expect(query);
                assert_eq!(parsed.1, expected, "{url} {query}");
            }
        }
    }

    #[test]
    fn a_url_that_says_too_little_or_too_much_is_refused_and_not_repeated() {
        for url in [
            "redis+sentinel://one:1",
            "redis+sentinel://one:1/",
            "redis+sentinel:///main",
            "redis+sentinel://me:hidden@one:1,/main",
            "redis+sentinel://one:1/main?password=hidden",
            "redis+sentinel://one:1/main?db=x",
            "redis+cluster://",
            "redis+cluster://one:1/2",
            "redis+cluster://one:1?db=1",
            "redis+cluster://one:1?replicas=11",
            "redis+cluster://one:1?replicas=1&replicas_for=minutes",
            "redis+cluster://one:1?replicas_for=money",
        ] {
            let refused = Address::parse(url).expect_err(url).to_string();
            assert!(!refused.contains("hidden"), "{refused}");
        }
    }
}
