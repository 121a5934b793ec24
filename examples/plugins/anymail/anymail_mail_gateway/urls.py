"""For the project's urlpatterns: `path("anymail/", include("anymail_mail_gateway.urls"))`."""

from __future__ import annotations

from django.urls import path

from anymail_mail_gateway.webhooks import InboundView, TrackingView

urlpatterns = [
    path("mail_gateway/tracking/", TrackingView.as_view(), name="mail_gateway_tracking"),
    path("mail_gateway/inbound/", InboundView.as_view(), name="mail_gateway_inbound"),
]
