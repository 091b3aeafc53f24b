"""CNI plugins: each module is a plugin, callable in-process (`cmd_add(args)`) and executable through `program.main`.

They know the CNI specification 1.1.0, minikube_raw.linux and minikube_raw.netlink, and nothing of pods or nodes; the
rest of the project knows them by the CNI contract only.
"""
