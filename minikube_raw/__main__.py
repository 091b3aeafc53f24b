"""`python -m minikube_raw` and the `minikube-raw` script."""

from minikube_raw.cli.main import main

if __name__ == "__main__":
    main()
