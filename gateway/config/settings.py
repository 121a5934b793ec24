"""What an operator can set: the shape of gateway.toml, validated and frozen.

Every setting has its default and its meaning here; docs/configuration.md lists them all.
`gateway.config.load` reads the file; nothing else in the gateway knows about TOML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from gateway.config.accounts import AccountSettings, DomainSettings, Route, Routes
from gateway.config.values import (
    AsTuple,
    BaseUrl,
    DataDir,
    Domain,
    IpAddresses,
    Listens,
    Networks,
    OneSpelling,
    Positive,
    Seconds,
    Section,
    Strings,
)
from gateway.mail.address import Address, AddressError

DIRECT = "direct"  # the transport that needs no table, and takes what no route matches
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


Role = Literal["smtp", "submission", "web", "deliver", "webhooks"]
ROLES: tuple[Role, ...] = get_args(Role)
WorkerNumbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AsTuple]


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
    # Seconds until one of several that gives no sign of life is killed.
    worker_timeout: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60.0
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
