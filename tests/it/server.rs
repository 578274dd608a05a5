//! A server in this process, on free ports and the embedded ledger, with an organisation to call for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tollgate::administration::Administration;
use tollgate::app::{self, Running};
use tollgate::charging::units::Seconds;
use tollgate::config::{self, Config, Flags, Listen};
use tollgate::ledger::ClockOffset;
use tollgate::ledger::memory::MemoryLedger;
use tollgate::organisation;
use tollgate::proto::v1::account_service_client::AccountServiceClient;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tonic::transport::{Channel, Endpoint};

/// contoso: alice has minutes, carol only credits, dave nothing.
const ORGANISATION: &str = r#"
tenants:
  - id: contoso
    currency: USD
    country: US
    credits:
      - { key: po-1, amount: "10", purchased_at: TODAY }
    users:
      - id: alice
        usage_location: US
        licences: [MCOEV, MCOPSTN1]
        numbers: ["+14255550100"]
      - id: carol
        usage_location: US
        licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1]
        numbers: ["+14255550101"]
      - id: dave
        usage_location: DE
        numbers: ["+4930123456"]
    trunks:
      - { id: sbc-de, emergency_country: DE }
"#;

/// [`ORGANISATION`] with credits that have not lapsed, whenever the tests run.
pub fn organisation() -> String {
    bought_today(ORGANISATION)
}

/// A document in which `TODAY` stands for the last midnight.
pub fn bought_today(document: &str) -> String {
    let midnight = Timestamp::now().strftime("%Y-%m-%dT00:00:00Z").to_string();
    document.replace("TODAY", &midnight)
}

/// One price for the world: 0.10 per minute, a fee of 0.05, 60/60.
pub const DECK: &str = "prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,currency,effective_from,effective_to,direction\n\
                        *,Anywhere,0.10,0.05,60,60,USD,2020-01-01,,outbound\n";

/// See the module.
pub struct Server {
    pub running: Running<MemoryLedger>,
    pub clock: ClockOffset,
}

/// Free ports, and everything else as it is without settings.
pub fn config() -> Config {
    let port_0 = || Some("127.0.0.1:0".to_owned());
    let flags = Flags {
        listen: port_0(),
        admin_listen: port_0(),
        http_listen: port_0(),
        sweep_interval: Some("10ms".to_owned()),
        // The ledger of a busy test machine is not away.
        ledger_timeout: Some("2s".to_owned()),
        ..Flags::default()
    };
    config::load(flags, None).expect("the settings are right")
}

impl Server {
    /// With the organisation and the deck.
    pub async fn start() -> Server {
        Server::start_with(config()).await
    }

    pub async fn start_with(config: Config) -> Server {
        let clock = ClockOffset::default();
        let ledger = Arc::new(MemoryLedger::new(clock.clone()));
        let running = app::start(ledger, &config).await.expect("the server starts");
        let administration = Administration::new(running.control().clone(), Seconds(10));
        administration.activate_deck("default", DECK.as_bytes()).await.expect("the deck is right");
        let server = Server { running, clock };
        server.apply(&organisation()).await;
        server
    }

    /// Applies another document.
    pub async fn apply(&self, document: &str) {
        let administration = Administration::new(self.running.control().clone(), Seconds(10));
        let document = organisation::read(document).expect("the document is YAML");
        let document = organisation::check(&document).expect("the document is right");
        administration.apply(&document).await.expect("the document is applied");
    }

    pub async fn calls(&self) -> CallAuthorizationServiceClient<Channel> {
        CallAuthorizationServiceClient::new(channel(&self.running.addresses().calls).await)
    }

    pub async fn account(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(channel(&self.running.addresses().administration).await)
    }
}

pub async fn channel(address: &Listen) -> Channel {
    let url = match address {
        Listen::Tcp(address) => format!("http://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    };
    let endpoint = Endpoint::try_from(url).unwrap().connect_timeout(Duration::from_secs(5));
    endpoint.connect().await.expect("the server listens")
}
