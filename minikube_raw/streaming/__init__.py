"""What streams to a pod's containers travel in: SPDY/3.1 and WebSocket, for the API server and the kubelet alike."""
