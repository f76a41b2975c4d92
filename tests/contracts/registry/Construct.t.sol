// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Fixture} from "../support/Fixture.sol";

contract RegistryConstructTest is Fixture {
    function test_ConstructKeepsItsArguments() public view {
        assertEq(address(registry.TOKEN()), address(token));
        assertEq(registry.ESCROW(), address(escrow));
        assertEq(registry.MIN_STAKE(), MIN_STAKE);
        assertEq(registry.UNSTAKE_DELAY_SECONDS(), UNSTAKE_DELAY);
        assertEq(registry.DISPUTE_SECONDS(), DISPUTE);
        assertEq(registry.COURT(), address(court));
        assertEq(registry.nodeCount(), 1);
    }

    function test_ConstructNeedsADelayLongerThanEveryWindow() public {
        uint48 windows = MAX_SESSION + GRACE + DISPUTE;
        address fresh = _escrowForNext();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_DelayTooShort.selector, windows, windows));
        _deployRegistry(address(token), fresh, windows);
        fresh = _escrowForNext();
        assertEq(_deployRegistry(address(token), fresh, windows + 1).UNSTAKE_DELAY_SECONDS(), windows + 1);
    }

    function test_ConstructNeedsAnEscrowThatNamesIt() public {
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)));
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_WrongEscrow.selector, address(registry), predicted)
        );
        _deployRegistry(address(token), address(escrow), UNSTAKE_DELAY);
    }

    function test_ConstructNeedsTheEscrowsToken() public {
        address fresh = _escrowForNext();
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_WrongToken.selector, stranger, address(token))
        );
        _deployRegistry(stranger, fresh, UNSTAKE_DELAY);
    }

    function _escrowForNext() private returns (address) {
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        return address(_deployEscrow(address(token), registryAt, treasury, MAX_SESSION));
    }
}
