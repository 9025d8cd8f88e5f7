"""millpond serves media from a WebAssembly component: here as a WSGI and as an ASGI application."""

from ._folder import Truncated
from ._guest import ComponentError
from .asgi import AsgiApp
from .figures import Figures
from .limits import Limits
from .settings import SettingError, Settings
from .wsgi import WsgiApp

__all__ = ["AsgiApp", "ComponentError", "Figures", "Limits", "SettingError", "Settings", "Truncated", "WsgiApp"]
