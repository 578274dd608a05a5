//! Which Redis is the master, as its sentinels say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, pipe,
};

use crate::ledger::redis::node::Link;

/// How often the sentinels are asked while they say nothing: one that hangs is silent, too.
const ASKED: Duration = Duration::from_secs(5);

/// How long a failover that one sentinel told of counts while the others do not know of it: the old master
/// may be running still.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What a sentinel says while another Redis takes over, the one that leads the failover first.
const EVENTS: [&str; 3] = ["+promoted-slave", "+failover-state-reconf-slaves", "+switch-master"];

/// Pause before the next sentinel is listened to.
const PAUSE: Duration = Duration::from_millis(200);

/// Sentinels, and the master that they are asked for.
pub(super) struct Sentinels {
    sentinels: Vec<Client>,
    master: String,
    redis: RedisConnectionInfo,
    limit: Duration,
    /// The latest failover that one of them told of, and when.
    latest: Mutex<Option<(Named, Instant)>>,
}

/// The epoch of a failover, and host and port of the master since then.
type Named = (u64, String, u16);

impl Sentinels {
    /// `limit` is the longest wait for one of them.
    pub(super) fn new(
        sentinels: Vec<ConnectionInfo>,
        master: String,
        redis: RedisConnectionInfo,
        limit: Duration,
    ) -> Result<Sentinels, redis::RedisError> {
        let sentinels = sentinels.into_iter().map(Client::open).collect::<Result<_, _>>()?;
        Ok(Sentinels { sentinels, master, redis, limit, latest: Mutex::default() })
    }

    /// Where the master is. Of a majority of the sentinels, or of those that answer in time, the one counts
    /// that knows of the latest failover.
    pub(super) async fn master(&self) -> Result<ConnectionInfo, String> {
        let mut asked: FuturesUnordered<_> = self
            .sentinels
            .iter()
            .map(|sentinel| async {
                let answer = tokio::time::timeout(self.limit, self.ask(sentinel)).await;
                answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.limit)))
            })
            .collect();
        let (mut answers, mut trouble) = (vec![], vec![]);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => trouble.push(error),
            }
            if answers.len() > self.sentinels.len() / 2 {
                break;
            }
        }
        let newest = answers.into_iter().max_by_key(|(epoch, _, _)| *epoch);
        let newest = newest.ok_or_else(|| {
            format!("no sentinel names the master {}: {}", self.master, trouble.join("; "))
        })?;
        let (_, host, port) = self.unless_outdated(newest);
        let place = ConnectionAddr::Tcp(host, port).into_connection_info();
        let place = place.map_err(|error| error.to_string())?;
        Ok(place.set_redis_settings(self.redis.clone()))
    }

    /// What they say now, or what one of them said a moment ago of a later failover.
    fn unless_outdated(&self, named: Named) -> Named {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((later, since)) if later.0 > named.0 && since.elapsed() < REMEMBERED => {
                later.clone()
            }
            _ => {
                *latest = Some((named.clone(), Instant::now()));
                named
            }
        }
    }

    /// What one of them says: the epoch of the latest failover, host and port.
    async fn ask(&self, sentinel: &Client) -> Result<Named, String> {
        type Found = (Option<(String, u16)>, HashMap<String, String>);
        let asked = async {
            let mut connection = sentinel.get_multiplexed_async_connection().await?;
            let mut commands = pipe();
            commands.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
            commands.cmd("SENTINEL").arg("MASTER").arg(&self.master);
            commands.query_async::<Found>(&mut connection).await
        };
        let place = sentinel.get_connection_info().addr();
        let (master, known) = asked.await.map_err(|error| format!("{place}: {error}"))?;
        let (host, port) = master.ok_or_else(|| format!("{place}: unknown"))?;
        let epoch = known.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok((epoch, host, port))
    }
}

/// Has a link follow the master: listens to one sentinel after the other for failovers.
pub(super) async fn follow(sentinels: Arc<Sentinels>, link: Arc<Link>) {
    for sentinel in sentinels.sentinels.iter().cycle() {
        if let Ok(Ok(mut listener)) =
            tokio::time::timeout(sentinels.limit, sentinel.get_async_pubsub()).await
            && listener.subscribe(&EVENTS).await.is_ok()
        {
            let mut messages = listener.on_message();
            loop {
                // What happened before somebody listened counts as well. This one may know more than the others.
                if let Ok(Ok(named)) =
                    tokio::time::timeout(sentinels.limit, sentinels.ask(sentinel)).await
                {
                    sentinels.unless_outdated(named);
                }
                if let Ok(master) = sentinels.master().await {
                    link.follow(&master.addr().to_string());
                }
                if let Ok(None) = tokio::time::timeout(ASKED, messages.next()).await {
                    break;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
