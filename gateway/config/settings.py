"""What an operator can set: the shape of gateway.toml, validated and frozen.

Every setting has its default and its meaning here; docs/configuration.md lists them all.
`gateway.config.load` reads the file; nothing else in the gateway knows about TOML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from gateway.config.values import (
    AllEvents,
    AsTuple,
    BaseUrl,
    DataDir,
    Domain,
    DomainPatterns,
    EmailAddresses,
    Events,
    FormatName,
    HeaderValue,
    HttpUrl,
    IpAddresses,
    Listens,
    Mailboxes,
    Networks,
    OneSpelling,
    Positive,
    Seconds,
    Secrets,
    Section,
    Separators,
    Strings,
    Text,
    without_login,
)
from gateway.mail.address import Address, AddressError
from gateway.model import EventName, RouteRule

DIRECT = "direct"  # the transport that needs no table, and takes what no route matches
OUTGOING: tuple[EventName, ...] = get_args(EventName)  # the names of events of messages that were sent
INCOMING = "incoming"  # the name of the event of a message that came in
MOX = "mox"  # the format of webhooks that is written where none is chosen
MAX_MESSAGE_SIZE = 25 * 1024 * 1024  # bytes; what large providers accept, base64 included


class SmtpSettings(Section):
    """[smtp]: mail that comes in."""

    listen: Listens = ()
    max_message_size: Positive = MAX_MESSAGE_SIZE  # bytes
    max_recipients: Positive = 1000  # of one message
    max_connections: Positive = 1000
    max_connections_per_network: Positive = 100  # IPv4 /24, IPv6 /64
    command_timeout: Seconds = 300.0  # RFC 5321, 4.5.3.2.7
    verify: bool = True  # SPF, DKIM and DMARC of each message
    # The account that gets mail for postmaster of any domain here, unless that address is somebody's (RFC
    # 5321, 4.5.1), and notices about mail whose account is gone. Empty: the first of [accounts].
    postmaster: str = ""
    # For development: the account that gets mail for addresses that nobody has. Empty: 550 5.1.1.
    unknown_recipients: str = ""


class TlsSettings(Section):
    """[tls]: the certificate of the listeners, PEM. Paths are relative to the configuration file."""

    certificate: str = ""  # and its chain behind it
    key: str = ""

    @model_validator(mode="after")
    def _both(self) -> TlsSettings:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together: set both or neither")
        return self


class SubmissionSettings(Section):
    """[submission]: mail that accounts hand in over SMTP, with STARTTLS.

    What is set here holds for [submissions] too. The largest message is `queue.max_message_size`.
    """

    listen: Listens = ()
    max_recipients: Positive = 1000  # of one message
    max_connections: Positive = 1000
    max_connections_per_network: Positive = 100  # IPv4 /24, IPv6 /64
    command_timeout: Seconds = 300.0  # RFC 5321, 4.5.3.2.7
    # Passwords may be sent in the clear: only where all of `listen` is this machine itself.
    login_without_tls: bool = False
    # X-Mox-Extra-... header fields are delivered too, not only told by webhooks.
    keep_extra_headers: bool = False

    @model_validator(mode="after")
    def _clear(self) -> SubmissionSettings:
        others = [str(listen) for listen in self.listen if not ip_address(listen.host).is_loopback]
        if self.login_without_tls and others:
            raise ValueError(
                f"login_without_tls: {others[0]} is not a loopback address; leave one of them out"
            )
        return self


class SubmissionsSettings(Section):
    """[submissions]: the same within TLS from the first byte (RFC 8314)."""

    listen: Listens = ()


class WebSettings(Section):
    """[web]: the API and the pages."""

    listen: Listens = ()
    base_path: Annotated[str, Field(pattern=r"^/([^\s?#]*/)?$")] = "/webapi/v0/"
    # Where people reach all of it, for links in mail: "https://mail.example.org/". Empty: there are no links.
    base_url: BaseUrl = ""
    max_connections: Positive = 1000
    memory_for_bodies: Positive = 256 * 1024 * 1024  # bytes, for all request bodies at a time
    request_timeout: Seconds = 60.0  # for each 64 KiB of a request's body
    operator_pages: bool = False  # the page /plugins, for anybody who reaches the listener


class MetricsSettings(Section):
    """[metrics]: numbers for Prometheus, on a listener of its own, for whoever can reach it."""

    listen: Listens = ()


class QueueSettings(Section):
    """[queue]: how much is delivered at a time."""

    max_message_size: Positive = MAX_MESSAGE_SIZE  # bytes, of what accounts send
    max_deliveries: Positive = 200  # at a time
    max_deliveries_per_destination: Positive = 20
    # Beyond these, those that have taken over 2 s already: most of them wait for a server in vain.
    max_slow_deliveries: Positive = 1000
    # RFC 5321 section 4.5.3.1.8: the least that every server takes.
    max_recipients_per_transaction: Positive = 100
    lease: Seconds = 1800.0  # the longest that one attempt may take


class ContentSettings(Section):
    """[content]: where large messages are kept; small ones are in the database."""

    store: Annotated[str, Field(min_length=1)] = "files"  # or one that a plugin registers
    timeout: Seconds = 30.0  # for each thing that the store is asked


class WebhookSettings(Section):
    """[webhooks]: how calls are made."""

    max_calls: Positive = 10  # at a time
    max_calls_per_url: Positive = 1
    # Beyond these, those that have taken over 2 s already: most of them wait for a receiver in vain.
    max_slow_calls: Positive = 100
    timeout: Seconds = 60.0
    # Networks that may be called although they are not public: an account chooses its URLs itself.
    allow_networks: Networks = ()


class DnsSettings(Section):
    """[dns]: who is asked for domains, hosts and policies."""

    nameservers: IpAddresses = ()  # none: those of /etc/resolv.conf
    port: Annotated[int, Field(ge=1, le=65535)] = 53
    timeout: Seconds = 10.0  # for one look-up, with all servers and repetitions
    # The servers verify DNSSEC, and the way to them is safe: what they call authentic is taken for it (DANE).
    validating: bool = False
    # For development: nobody is asked; the configured domains have records of SPF and DMARC, and nothing else
    # exists.
    simulated: bool = False
    # Then also DKIM keys: the files of private ones, by the names of their records.
    simulated_keys: Mapping[str, str] = {}

    @model_validator(mode="after")
    def _named(self) -> DnsSettings:
        if self.validating and not self.nameservers:
            raise ValueError("validating: needs nameservers; name the servers that verify DNSSEC")
        if self.simulated and self.nameservers:
            raise ValueError("simulated: no server is asked then; leave nameservers out")
        if self.simulated_keys and not self.simulated:
            raise ValueError("simulated_keys: needs simulated = true")
        return self


class PluginsSettings(Section):
    """[plugins]: which plugin sets the gateway runs with, in order."""

    sets: Strings = ("default",)
    # Of plugins that are a single file each, NAME.py; relative to the configuration file.
    directory: Annotated[str, Field(pattern=r"^[^\x00]*$")] = ""


class PluginSet(Section):
    """[plugin_sets.NAME]: an ordered list of plugins; earlier ones are asked first."""

    plugins: Strings = ()
    include: Strings = ()  # names of other sets, whose plugins come before
    without: Strings = ()  # plugins of those that are left out


class Route(Section):
    """[[routes]], also in an account or a domain."""

    transport: Annotated[str, Field(min_length=1)]
    from_domains: DomainPatterns = ()
    to_domains: DomainPatterns = ()
    minimum_attempts: Annotated[int, Field(ge=0)] = 0
    name: str = ""  # for plugins that treat what goes this way in another way, such as `retry`

    @property
    def matches_all(self) -> bool:
        return not (self.from_domains or self.to_domains or self.minimum_attempts)

    @cached_property
    def rule(self) -> RouteRule:
        """For plugins."""
        return RouteRule(
            transport=self.transport,
            from_domains=self.from_domains,
            to_domains=self.to_domains,
            minimum_attempts=self.minimum_attempts,
            name=self.name,
        )


Role = Literal["smtp", "submission", "web", "deliver", "webhooks"]
ROLES: tuple[Role, ...] = get_args(Role)
WorkerNumbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AsTuple]

Routes = Annotated[tuple[Route, ...], AsTuple]
AccountNames = Annotated[tuple[str, ...], AsTuple, Field(min_length=1, max_length=100)]


class DomainSettings(Section):
    """[domains."example.org"]: a domain whose mail this gateway handles."""

    disabled: bool = False
    catchall_separator: Separators = ()  # such as "+": the localpart is cut there to find the account
    catchall_account: str = ""  # gets mail for this domain's other addresses
    # Localparts of addresses for which each of these accounts gets a copy. Nobody logs in with them.
    aliases: Mapping[str, AccountNames] = {}
    plugin_set: str = ""  # instead of the gateway's, for the stages of account scope
    routes: Routes = ()


class WebhookTarget(Section):
    """[[accounts.NAME.webhooks]]: one URL (beyond mox) that an account's webhooks go to."""

    url: HttpUrl
    authorization: Annotated[HeaderValue, Field(repr=False)] = ""  # the header's value
    events: AllEvents = ()  # none listed means all, "incoming" too
    supersede: bool = True  # outgoing only: drop a waiting call when a newer event of the message comes
    format: FormatName = MOX  # of the body; a plugin makes it
    secrets: Secrets = ()  # each signs; while one is changed there are two, the new one first


class MoxWebhookTarget(WebhookTarget):
    """[accounts.NAME.webhook_outgoing] and webhook_incoming, one each as mox has them."""

    events: Events = ()  # outgoing only; none listed means all


class AccountSettings(Section):
    """[accounts.NAME]: who may send, and receives."""

    addresses: Annotated[EmailAddresses, Field(min_length=1)]
    full_name: Text = ""
    plugin_set: str = ""  # instead of the domain's or the gateway's, for the stages of account scope
    plugin: Mapping[str, Mapping[str, Any]] = {}  # [accounts.NAME.plugin.PLUGIN]: over [plugin.PLUGIN]
    routes: Routes = ()
    webhook_outgoing: MoxWebhookTarget | None = None
    webhook_incoming: MoxWebhookTarget | None = None
    webhooks: Annotated[tuple[WebhookTarget, ...], AsTuple, Field(max_length=100)] = ()
    # Logins whose messages get a unique reverse-path for each recipient, so that what comes back says which
    # message it is about. The domains of all the account's addresses need a catchall separator.
    from_id_login_addresses: EmailAddresses = ()
    # Over the last 24 hours, counted for each recipient; 0 is the default, -1 no limit.
    max_messages_per_day: Annotated[int, Field(ge=-1)] = 0
    max_first_time_recipients_per_day: Annotated[int, Field(ge=-1)] = 0
    quota: Annotated[int, Field(ge=0)] = 0  # bytes in its mailboxes; 0: any number
    mailboxes: Mailboxes = ()  # of its own, beside those that every account has
    keep_retired_days: Annotated[float, Field(ge=0)] = 7.0
    keep_webhooks_days: Annotated[float, Field(ge=0)] = 7.0

    def all_webhook_targets(self) -> Iterator[tuple[WebhookTarget, tuple[str, ...]]]:
        """Each URL with the events that go there."""
        if self.webhook_outgoing is not None:
            yield self.webhook_outgoing, self.webhook_outgoing.events or OUTGOING
        if self.webhook_incoming is not None:
            yield self.webhook_incoming, (INCOMING,)
        for target in self.webhooks:
            yield target, target.events or (*OUTGOING, INCOMING)

    def webhook_targets(self, event: str) -> tuple[WebhookTarget, ...]:
        """Where calls for an event go, each with a call of its own: an outgoing one's name, or "incoming"."""
        return tuple(target for target, events in self.all_webhook_targets() if event in events)

    @model_validator(mode="after")
    def _one_call_for_each_url(self) -> AccountSettings:
        """Two calls for one event to one URL would supersede each other."""
        seen = set()
        for target, events in self.all_webhook_targets():
            for event in events:
                if (target.url, event) in seen:
                    raise ValueError(
                        f"{without_login(target.url)} would be called twice for {event!r}: give one of its"
                        " tables other events, or take it out"
                    )
                seen.add((target.url, event))
        return self


class RolesSettings(Section):
    """Which of several workers do what, by their numbers; where none is named, all of them."""

    smtp: WorkerNumbers = ()
    submission: WorkerNumbers = ()
    web: WorkerNumbers = ()
    deliver: WorkerNumbers = ()
    webhooks: WorkerNumbers = ()


class Settings(Section):
    """gateway.toml."""

    hostname: Domain
    data_dir: DataDir = Field(default=Path("data"), strict=False)  # relative to the configuration file
    grace: Seconds = 10.0  # for work under way when the gateway stops
    # Processes that share the work; each needs memory of its own, and a processor to be of use.
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    roles: RolesSettings = RolesSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    tls: TlsSettings = TlsSettings()
    smtp: SmtpSettings = SmtpSettings()
    submission: SubmissionSettings = SubmissionSettings()
    submissions: SubmissionsSettings = SubmissionsSettings()
    web: WebSettings = WebSettings()
    metrics: MetricsSettings = MetricsSettings()
    queue: QueueSettings = QueueSettings()
    content: ContentSettings = ContentSettings()
    webhooks: WebhookSettings = WebhookSettings()
    dns: DnsSettings = DnsSettings()
    plugins: PluginsSettings = PluginsSettings()
    plugin_sets: Mapping[str, PluginSet] = {}
    plugin: Mapping[str, Mapping[str, Any]] = {}  # [plugin.NAME]: parsed by the plugin's own model
    transports: Mapping[str, Mapping[str, Any]] = {}  # [transports.NAME]: `type` names who parses the rest
    routes: Routes = ()
    domains: Annotated[Mapping[Domain, DomainSettings], OneSpelling] = {}
    accounts: Mapping[str, AccountSettings] = {}

    @model_validator(mode="after")
    def _references(self) -> Settings:
        """What one part says of another: names that must exist, addresses that must be unique."""
        if not self.tls.certificate:
            if self.submissions.listen:
                raise ValueError("submissions.listen: needs a certificate; set tls.certificate and tls.key")
            if self.submission.listen and not self.submission.login_without_tls:
                raise ValueError(
                    "submission.listen: nobody could log in without a certificate; set tls.certificate and "
                    "tls.key"
                )
        busy = {0}  # does what is to be done once
        for role in ROLES:
            busy |= set(self.workers_with(role))
            if (last := max(self.workers_with(role))) >= self.workers:
                raise ValueError(
                    f"roles.{role}: there is no worker {last}; with workers = {self.workers} the last is "
                    f"{self.workers - 1}, as they are numbered from 0"
                )
        if idle := set(range(self.workers)) - busy:
            raise ValueError(
                f"roles: worker {min(idle)} has nothing to do; name it in a role, or lower `workers`, now "
                f"{self.workers}"
            )
        owner: dict[tuple[str, str], str] = {}
        for name, account in self.accounts.items():
            for address in account.addresses:
                if address.domain not in self.domains:
                    raise ValueError(
                        f"accounts.{name}.addresses: {address}: add [domains.{address.domain!r}]"
                    )
                # Mail to an address is delivered whatever its case.
                folded = (address.localpart.casefold(), address.domain)
                if folded in owner:
                    raise ValueError(f"accounts.{name}.addresses: {address} is {owner[folded]}'s already")
                owner[folded] = name
            if account.from_id_login_addresses:
                self._check_from_ids(name, account)
        wanted = [(f"domains.{d!r}.catchall_account", s.catchall_account) for d, s in self.domains.items()]
        wanted.append(("smtp.unknown_recipients", self.smtp.unknown_recipients))
        wanted.append(("smtp.postmaster", self.smtp.postmaster))
        wanted += self._check_aliases(owner)
        for where, account_name in wanted:
            if account_name and account_name not in self.accounts:
                raise ValueError(
                    f"{where}: there is no account {account_name!r}; add [accounts.{account_name}]"
                )
        for where, rules in self.all_routes():
            for number, rule in enumerate(rules):
                if rule.transport not in self.transports and rule.transport != DIRECT:
                    raise ValueError(
                        f"{where}[{number}].transport: there is no [transports.{rule.transport}]; add it"
                    )
        return self

    def workers_with(self, role: Role) -> tuple[int, ...]:
        """Their numbers, in order."""
        named: tuple[int, ...] = getattr(self.roles, role)
        return tuple(sorted(set(named))) or tuple(range(self.workers))

    @property
    def postmaster(self) -> str:
        """The account that gets mail for postmaster; "" if there is no account at all."""
        return self.smtp.postmaster or next(iter(self.accounts), "")

    def _check_aliases(self, owner: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
        """Each alias is an address, and nobody's; the accounts that aliases name."""
        named = []
        for domain, settings in self.domains.items():
            seen: set[str] = set()
            for alias, accounts in settings.aliases.items():
                where = f"domains.{domain!r}.aliases.{alias!a}"
                try:
                    address = Address.parse(f"{alias}@{domain}")
                except AddressError as exc:
                    raise ValueError(f"{where}: {exc}; write what stands before the @") from None
                folded = address.localpart.casefold()
                if (folded, domain) in owner or folded in seen:
                    whose = owner.get((folded, domain), "another alias")
                    raise ValueError(f"{where}: {address} is {whose}'s already")
                seen.add(folded)
                named += [(where, account) for account in accounts]
        return named

    def all_routes(self) -> Iterator[tuple[str, tuple[Route, ...]]]:
        """The routes of the gateway, of domains and of accounts, with where they are."""
        yield "routes", self.routes
        for domain, of_domain in self.domains.items():
            yield f"domains.{domain!r}.routes", of_domain.routes
        for account, of_account in self.accounts.items():
            yield f"accounts.{account}.routes", of_account.routes

    def _check_from_ids(self, name: str, account: AccountSettings) -> None:
        """Unique addresses can be made, and come back to the account."""
        where = f"accounts.{name}.from_id_login_addresses"
        ours = {(address.localpart.casefold(), address.domain) for address in account.addresses}
        for login in account.from_id_login_addresses:
            separators = self.domains[login.domain].catchall_separator if login.domain in self.domains else ()
            cuts = [login.localpart, *(login.localpart.partition(separator)[0] for separator in separators)]
            if not any((cut.casefold(), login.domain) in ours for cut in cuts):
                raise ValueError(f"{where}: {login} is no address of this account; add it to its addresses")
        for address in account.addresses:
            separators = self.domains[address.domain].catchall_separator
            if not separators:
                raise ValueError(
                    f"{where}: the domain of {address} has no catchall separator; add"
                    f' catchall_separator = ["+"] to [domains.{address.domain!r}]'
                )
            if separators[0] in address.localpart:
                raise ValueError(
                    f"{where}: {address} has its domain's first catchall separator {separators[0]!r} in it,"
                    " so that nothing would come back; put another one first"
                )
