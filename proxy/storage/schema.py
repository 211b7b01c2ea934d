"""The tables. Portable to PostgreSQL: text ids, Unix moments, no JSON operators, named constraints."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Sequence = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER PRIMARY KEY

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("weight", Integer, nullable=False, server_default="1"),
    Column("external_id", Text),
    Column("created_at", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey(tenants.c.id), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("requests_per_minute", Integer),
    Column("concurrency", Integer),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)

key_secrets = Table(
    "key_secrets",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("key_id", ForeignKey(keys.c.id), nullable=False, index=True),
    Column("scheme", String(16), nullable=False),  # ours, or an imported one's SHA-256
    Column("shown", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),  # set by a rotation: the grace period of the older secret
)

proxies = Table(
    "proxies",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),  # masked
    Column("sealed_url", LargeBinary, nullable=False),
    Column("sealed_clearance", LargeBinary),
    Column("user_agent", Text),
    Column("enabled", Boolean, nullable=False),
    Column("removed_at", Double),
    Column("exit_address", Text),
    Column("created_at", Double, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("driver", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("tier", String(32), nullable=False),
    Column("team", Text),
    Column("base_url", Text),
    Column("models", Text),  # a JSON list of upstream models; null: whatever the driver serves
    Column("concurrency", Integer, nullable=False),
    Column("proxy_id", ForeignKey(proxies.c.id)),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False, index=True),
    Column("disabled_cause", Text),
    Column("created_at", Double, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("dialect", String(16), nullable=False),
    Column("tenant_id", ForeignKey(tenants.c.id), nullable=False),
    Column("key_id", ForeignKey(keys.c.id), nullable=False),
    Column("state", String(16), nullable=False),
    Column("order", Text, nullable=False),  # JSON
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("synchronous", Boolean, nullable=False),
    Column("input_file_id", String(64)),
    Column("created_at", Double, nullable=False),
    Column("deadline", Double, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("queue_tag", Double, nullable=False),  # the order of the queue within a priority
    Column("worker", String(64)),
    Column("fence", BigInteger, nullable=False),
    Column("attempt_id", String(64)),
    Column("token_id", String(64)),
    Column("proxy_id", String(64)),
    Column("upstream_id", Text),
    Column("file_id", String(64)),
    Column("error", String(64)),
    Column("cancel_requested_at", Double),
    Column("finished_at", Double),
    Column("seen_at", Double),
)
Index("ix_jobs_tenant_id_id", jobs.c.tenant_id, jobs.c.id)
Index("ix_jobs_key_id_created_at", jobs.c.key_id, jobs.c.created_at)
Index("ix_jobs_finished_at", jobs.c.finished_at)
Index(
    "ix_jobs_due",
    jobs.c.priority,
    jobs.c.queue_tag,
    sqlite_where=jobs.c.finished_at.is_(None),
    postgresql_where=jobs.c.finished_at.is_(None),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("work_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("token_id", String(64), nullable=False, index=True),
    Column("proxy_id", String(64)),
    Column("why", Text, nullable=False),
    Column("upstream_id", Text),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(32)),
    Column("blame", String(16)),
    Column("evidence", Text),
    Column("possible_cost", BigInteger),  # ticks that a lost submit may have cost
    UniqueConstraint("work_id", "number"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("work_id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("ticks", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("released_at", Double),
)

charges = Table(
    "charges",
    metadata,
    Column("work_id", String(64), primary_key=True),  # a work is charged once
    Column("tenant_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("cost", BigInteger, nullable=False),  # ticks the upstream took
    Column("charge", BigInteger, nullable=False),  # ticks the tenant pays
    Column("charged_at", Double, nullable=False),
)
Index("ix_charges_tenant_id_charged_at", charges.c.tenant_id, charges.c.charged_at)

cooldowns = Table(
    "cooldowns",
    metadata,
    Column("subject_kind", String(16), primary_key=True),
    Column("subject_id", String(160), primary_key=True),
    Column("scope", String(160), primary_key=True),
    Column("until", Double, nullable=False),
    Column("since", Double, nullable=False),
    Column("strikes", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("attempt_id", String(64)),
)

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False),
    Column("work_id", String(64), index=True),
    Column("media_type", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant_id", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("work_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False, index=True),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("work_id", String(64), nullable=False, index=True),
    Column("kind", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("delivered_at", Double),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(64), nullable=False, index=True),
    Column("details", Text, nullable=False),  # JSON, without secrets
)

changes = Table(
    "changes",
    metadata,
    Column("seq", Sequence, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("id", String(160), nullable=False),
    sqlite_autoincrement=True,  # a number is never used twice, clean-up or not
)

pauses = Table(
    "pauses",
    metadata,
    Column("kind", String(16), primary_key=True),  # all, driver, model
    Column("id", String(160), primary_key=True),
    Column("since", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
)

sealed = Table(
    "sealed",
    metadata,
    Column("name", String(64), primary_key=True),  # the gateway's own: the pepper, the signing key
    Column("value", LargeBinary, nullable=False),
)
