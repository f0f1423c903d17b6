"""Direct connections between programs and replicas: requests and answers without a detour.

Nothing here knows Ray: a lane needs a connected socket, a token, and something that runs requests.
"""
