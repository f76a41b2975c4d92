// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Fixture} from "../support/Fixture.sol";

contract EscrowConstructTest is Fixture {
    function test_ConstructKeepsItsArguments() public view {
        assertEq(address(escrow.TOKEN()), address(token));
        assertEq(address(escrow.REGISTRY()), address(registry));
        assertEq(escrow.TREASURY(), treasury);
        assertEq(escrow.MAX_SESSION_SECONDS(), MAX_SESSION);
        assertEq(escrow.GRACE_SECONDS(), GRACE);
        assertEq(escrow.CHALLENGE_SECONDS(), CHALLENGE);
        assertEq(escrow.COURT(), address(court));
        (, string memory name, string memory version, uint256 chainId, address verifier,,) =
            IERC5267(address(escrow)).eip712Domain();
        assertEq(name, "Wattline");
        assertEq(version, "1");
        assertEq(chainId, block.chainid);
        assertEq(verifier, address(escrow));
    }

    function test_ConstructRefusesZeroTokenOrRegistryOrTreasury() public {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, address(0)));
        _deployEscrow(address(0), stranger, treasury, MAX_SESSION);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, address(0)));
        _deployEscrow(address(token), address(0), treasury, MAX_SESSION);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, address(0)));
        _deployEscrow(address(token), stranger, address(0), MAX_SESSION);
    }

    function test_ConstructRefusesACourtOfZeroAndAWindowBelowAMinute() public {
        bytes memory first = abi.encode(token, stranger, address(0), treasury, MAX_SESSION, GRACE, CHALLENGE);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, address(0)));
        deployCode("Escrow.sol:Escrow", first);
        bytes memory second = abi.encode(token, stranger, stranger, treasury, MAX_SESSION, GRACE, uint32(59));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongChallenge.selector, 59, 60));
        deployCode("Escrow.sol:Escrow", second);
        second = abi.encode(token, stranger, stranger, treasury, MAX_SESSION, GRACE, uint32(60));
        assertEq(IEscrow(deployCode("Escrow.sol:Escrow", second)).CHALLENGE_SECONDS(), 60);
    }

    function test_ConstructRefusesAGraceAbove72Hours() public {
        bytes memory values = abi.encode(token, stranger, stranger, treasury, MAX_SESSION, 72 hours + 1, CHALLENGE);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongGrace.selector, 72 hours + 1, 72 hours));
        deployCode("Escrow.sol:Escrow", values);
        values = abi.encode(token, stranger, stranger, treasury, MAX_SESSION, 72 hours, CHALLENGE);
        assertEq(IEscrow(deployCode("Escrow.sol:Escrow", values)).GRACE_SECONDS(), 72 hours);
    }

    function test_ConstructRefusesItselfAsTreasury() public {
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongAddress.selector, predicted));
        _deployEscrow(address(token), stranger, predicted, MAX_SESSION);
    }

    function test_ConstructRefusesSessionsOfNoTimeOrAbove72Hours() public {
        uint32 limit = 72 hours;
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongMaxSession.selector, 0, limit));
        _deployEscrow(address(token), stranger, treasury, 0);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongMaxSession.selector, limit + 1, limit));
        _deployEscrow(address(token), stranger, treasury, limit + 1);
    }

    function test_DomainFollowsTheChainId() public {
        bytes32 before = escrow.DOMAIN_SEPARATOR();
        vm.chainId(1);
        assertNotEq(escrow.DOMAIN_SEPARATOR(), before);
    }
}
