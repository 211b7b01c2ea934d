"""What the admin API's handlers find on the application."""

from aiohttp import web

from proxy.services.admin_key import AdminKey
from proxy.services.audit import Audit
from proxy.services.jobs import Jobs
from proxy.services.keys import Keys
from proxy.services.master_key import MasterKey
from proxy.services.pauses import Pauses
from proxy.services.proxies import Proxies
from proxy.services.status import Status
from proxy.services.tokens import Tokens

KEYS = web.AppKey("KEYS", Keys)
TOKENS = web.AppKey("TOKENS", Tokens)
PROXIES = web.AppKey("PROXIES", Proxies)
JOBS = web.AppKey("JOBS", Jobs)
PAUSES = web.AppKey("PAUSES", Pauses)
STATUS = web.AppKey("STATUS", Status)
AUDIT = web.AppKey("AUDIT", Audit)
ADMIN_KEY = web.AppKey("ADMIN_KEY", AdminKey)
MASTER_KEY = web.AppKey("MASTER_KEY", MasterKey)
