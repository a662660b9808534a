"""Secrets that can be told from anything else, and where each is planted."""

import base64

TOKENS = {
    # HubSpot's own form, and one that nothing but its place gives away.
    "good": "pat-na1-CANARY0a-0000-4000-8000-000000000001",
    "plain": "CANARYplaintoken9e7d41",
    "refused": "pat-eu1-CANARY0b-refused-4000-8000-0000000002",
    "echoed": "CANARYechoed-token-77c1",
    "broken": "CANARYbroken-token-1d22",
}
OF_CONNECTIONS = {
    name: f"pat-na1-CANARY{number}c-{name}-4000-8000-00000000000{number}"
    for number, name in enumerate(("rest", "patched", "unfit", "cli", "environment"))
}
VERB_FIRST = "pat-eu1-CANARY1f-verb-first-4000-8000-0000000001"
JWT_SECRET = "CANARY-jwt-q7Zx93kLm2Rb8Tn5Vw1Yc6Hd4Gf0Js"
OTHER_SECRET = "CANARY-forger-a8Dk20cNs7Tb4Ye1Uw9Xh3Mj5Pv6"
RING = [
    base64.b64encode(f"CANARY-ring-{name}-0123456789abcdef"[:32].encode()).decode()
    for name in ("old", "new")
]
PROXY = "CANARYproxypass55e1"
COLLECTOR = "CANARYcollector-key-83d0"
USERINFO, QUERY = "CANARYuserinfo-90aa", "CANARYquery-of-hook-44b2"
REQUESTS = 200

PLANTED = {
    "AuthCreate.access_token": "each of TOKENS, of OF_CONNECTIONS, and VERB_FIRST",
    "ApiSettings.jwt_secret": "JWT_SECRET",
    "CommandLineSettings.access_token": "OF_CONNECTIONS['cli']",
    "CommandLineSettings.api_key": "the API key that the command line made",
    "ConnectionEnvironment.access_token": "OF_CONNECTIONS['environment']",
    "WebhookWithSecret.secret": "the secrets of creation and rotation",
    **{
        f"{model}.encryption_keys": "RING"
        for model in (
            "ApiSettings",
            "PipelineSettings",
            "PipelineSettingsResource",
            "RotationSettings",
        )
    },
    **{
        f"{model}.database_url": "the password of the stack's PostgreSQL"
        for model in (
            "ApiSettings",
            "CommandLineSettings",
            "MigrationSettings",
            "PipelineSettings",
            "PipelineSettingsResource",
            "RotationSettings",
            "StorageSettings",
        )
    },
    "StorageSettings.dagster_storage_url": "the same password",
}
"""Where a secret can be given, and which one is: a field that is new belongs here too."""

ENVIRONMENT = {
    "HUBSPOT_DEALS_LOG_FORMAT": "json",
    "HUBSPOT_DEALS_AUTH_MODE": "required",
    "HUBSPOT_DEALS_JWT_SECRET": JWT_SECRET,
    "HUBSPOT_DEALS_JWT_ISSUER": "https://issuer.example.com",
    "HUBSPOT_DEALS_JWT_AUDIENCE": "deals",
    "HUBSPOT_DEALS_RATE_LIMIT_SCANS": "1000/hour",
    "HUBSPOT_DEALS_RATE_LIMIT_RESULTS": "100000/hour",
    "HUBSPOT_DEALS_WEBHOOK_ALLOW_HTTP": "true",
    "HUBSPOT_DEALS_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "HUBSPOT_DEALS_ENCRYPTION_KEYS": f"k1:{RING[0]},k2:{RING[1]}",
    "HUBSPOT_DEALS_ACCESS_TOKEN": OF_CONNECTIONS["environment"],
    "HUBSPOT_DEALS_ORGANIZATION_ID": "org-environment",
    "HTTPS_PROXY": f"http://proxy-user:{PROXY}@127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={COLLECTOR}",
}
